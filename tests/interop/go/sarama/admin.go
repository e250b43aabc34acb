package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/IBM/sarama"

	"highwater.invalid/interop/contract"
)

// tour is the admin verb: one topic, one group, a step after the other.
type tour struct {
	sarama.ClusterAdmin
	bootstrap, topic, group string
}

func admin(arguments contract.Arguments) error {
	admin, err := sarama.NewClusterAdmin([]string{arguments.Bootstrap}, sarama.NewConfig())
	if err != nil {
		return err
	}
	defer admin.Close()
	topic := arguments.Text("topic")
	tour := tour{ClusterAdmin: admin, bootstrap: arguments.Bootstrap, topic: topic, group: topic + "-group"}
	return contract.Steps([]contract.Step{
		{Name: "create", Run: tour.create},
		{Name: "exists", Run: tour.exists},
		{Name: "list", Run: tour.list},
		{Name: "describe", Run: func() error { return tour.describe(3) }},
		{Name: "describe_configs", Run: func() error { return tour.configs("2000000") }},
		{Name: "alter_configs", Run: tour.alterConfigs},
		{Name: "create_partitions", Run: tour.createPartitions},
		{Name: "produce", Run: tour.produce},
		{Name: "list_offsets", Run: func() error { return tour.offsets(0, 10) }},
		{Name: "delete_records", Run: tour.deleteRecords},
		{Name: "commit", Run: tour.commit},
		{Name: "list_groups", Run: tour.listGroups},
		{Name: "describe_group", Run: tour.describeGroup},
		{Name: "list_group_offsets", Run: func() error { return tour.committed(7) }},
		{Name: "delete_group_offsets", Run: tour.deleteGroupOffsets},
		{Name: "delete_group", Run: tour.deleteGroup},
		{Name: "describe_cluster", Run: tour.cluster},
		{Name: "delete_topic", Run: tour.deleteTopic},
	})
}

func (tour tour) create() error {
	size := "2000000"
	return tour.CreateTopic(tour.topic, &sarama.TopicDetail{
		NumPartitions:     3,
		ReplicationFactor: 1,
		ConfigEntries:     map[string]*string{"max.message.bytes": &size},
	}, false)
}

func (tour tour) exists() error {
	err := tour.CreateTopic(tour.topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false)
	if !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return fmt.Errorf("creating it again answers %v", err)
	}
	return nil
}

func (tour tour) list() error {
	return contract.Eventually(func() error {
		topics, err := tour.ListTopics()
		if _, found := topics[tour.topic]; err == nil && !found {
			err = errors.New("the topic is not in the list")
		}
		return err
	})
}

func (tour tour) describe(partitions int) error {
	return contract.Eventually(func() error {
		topics, err := tour.DescribeTopics([]string{tour.topic})
		if err != nil {
			return err
		}
		brokers, _, err := tour.DescribeCluster()
		if err != nil {
			return err
		}
		if topics[0].Err != sarama.ErrNoError || len(topics[0].Partitions) != partitions {
			return fmt.Errorf("%d partitions, not %d: %v", len(topics[0].Partitions), partitions, topics[0].Err)
		}
		for _, partition := range topics[0].Partitions {
			leads := func(broker *sarama.Broker) bool { return broker.ID() == partition.Leader }
			if partition.Err != sarama.ErrNoError || !slices.ContainsFunc(brokers, leads) {
				return fmt.Errorf("partition %d is led by %d: %v", partition.ID, partition.Leader, partition.Err)
			}
		}
		return nil
	})
}

func (tour tour) configs(size string) error {
	return contract.Eventually(func() error {
		entries, err := tour.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: tour.topic})
		if err != nil {
			return err
		}
		sources := map[string]string{}
		for _, entry := range entries {
			sources[entry.Name] = fmt.Sprint(entry.Value, " ", entry.Source)
		}
		wanted := map[string]string{
			"max.message.bytes": fmt.Sprint(size, " ", sarama.SourceTopic),
			"segment.bytes":     fmt.Sprint(1<<30, " ", sarama.SourceDefault),
		}
		for name, value := range wanted {
			if sources[name] != value {
				return fmt.Errorf("%s is %q, not %q", name, sources[name], value)
			}
		}
		return nil
	})
}

func (tour tour) alterConfigs() error {
	size := "3000000"
	entries := map[string]sarama.IncrementalAlterConfigsEntry{
		"max.message.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &size},
	}
	if err := tour.IncrementalAlterConfig(sarama.TopicResource, tour.topic, entries, false); err != nil {
		return err
	}
	return tour.configs(size)
}

func (tour tour) createPartitions() error {
	if err := tour.CreatePartitions(tour.topic, 5, nil, false); err != nil {
		return err
	}
	return tour.describe(5)
}

func (tour tour) produce() error {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	producer, err := sarama.NewSyncProducer([]string{tour.bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	for range 10 {
		record := &sarama.ProducerMessage{Topic: tour.topic, Value: sarama.StringEncoder("tour")}
		if _, _, err := producer.SendMessage(record); err != nil {
			return err
		}
	}
	return nil
}

func (tour tour) offsets(earliest, latest int64) error {
	found := map[int64]int64{}
	for _, at := range []int64{sarama.OffsetOldest, sarama.OffsetNewest} {
		answer, err := tour.ListOffsets(map[string]map[int32]int64{tour.topic: {0: at}}, nil)
		if err != nil {
			return err
		}
		result := answer[tour.topic][0]
		if result.Err != nil && !errors.Is(result.Err, sarama.ErrNoError) {
			return result.Err
		}
		found[at] = result.Offset
	}
	if found[sarama.OffsetOldest] != earliest || found[sarama.OffsetNewest] != latest {
		return fmt.Errorf("the offsets are %v, not %d to %d", found, earliest, latest)
	}
	return nil
}

func (tour tour) deleteRecords() error {
	if err := tour.DeleteRecords(tour.topic, map[int32]int64{0: 4}); err != nil {
		return err
	}
	return tour.offsets(4, 10)
}

func (tour tour) commit() error {
	offsets := map[string]map[int32]sarama.OffsetAndMetadata{tour.topic: {0: {Offset: 7, LeaderEpoch: -1}}}
	answer, err := tour.AlterConsumerGroupOffsets(tour.group, offsets, nil)
	if err != nil {
		return err
	}
	if code := answer.Errors[tour.topic][0]; code != sarama.ErrNoError {
		return code
	}
	return nil
}

func (tour tour) listed() (bool, error) {
	groups, err := tour.ListConsumerGroups()
	_, found := groups[tour.group]
	return found, err
}

func (tour tour) listGroups() error {
	found, err := tour.listed()
	if err == nil && !found {
		err = errors.New("the group is not in the list")
	}
	return err
}

func (tour tour) describeGroup() error {
	groups, err := tour.DescribeConsumerGroups([]string{tour.group})
	if err != nil {
		return err
	}
	group := groups[0]
	if group.Err != sarama.ErrNoError || group.State != "Empty" || len(group.Members) != 0 {
		return fmt.Errorf("the group is %q with %d members: %v", group.State, len(group.Members), group.Err)
	}
	return nil
}

// committed wants this offset; -1 is none.
func (tour tour) committed(offset int64) error {
	answer, err := tour.ListConsumerGroupOffsets(tour.group, map[string][]int32{tour.topic: {0}})
	if err != nil {
		return err
	}
	block := answer.GetBlock(tour.topic, 0)
	if block == nil || block.Err != sarama.ErrNoError || block.Offset != offset {
		return fmt.Errorf("the committed offset is %+v, not %d", block, offset)
	}
	return nil
}

func (tour tour) deleteGroupOffsets() error {
	if err := tour.DeleteConsumerGroupOffset(tour.group, tour.topic, 0); err != nil {
		return err
	}
	return tour.committed(-1)
}

func (tour tour) deleteGroup() error {
	if err := tour.DeleteConsumerGroup(tour.group); err != nil {
		return err
	}
	found, err := tour.listed()
	if err == nil && found {
		err = errors.New("the group is still in the list")
	}
	return err
}

// cluster asks a broker itself: the library's DescribeCluster keeps the id of the cluster to itself.
func (tour tour) cluster() error {
	brokers, _, err := tour.DescribeCluster()
	if err != nil {
		return err
	}
	broker, err := tour.Controller()
	if err != nil {
		return err
	}
	metadata, err := broker.GetMetadata(sarama.NewMetadataRequest(sarama.DefaultVersion, nil))
	if err != nil {
		return err
	}
	if id := metadata.ClusterID; id == nil || *id == "" || len(brokers) != 1 {
		return fmt.Errorf("cluster %v has %d nodes", id, len(brokers))
	}
	return nil
}

func (tour tour) deleteTopic() error {
	if err := tour.DeleteTopic(tour.topic); err != nil {
		return err
	}
	return contract.Eventually(func() error {
		topics, err := tour.ListTopics()
		if _, found := topics[tour.topic]; err == nil && found {
			err = errors.New("the topic is still in the list")
		}
		return err
	})
}
