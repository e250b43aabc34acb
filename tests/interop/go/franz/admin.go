package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"highwater.invalid/interop/contract"
)

// tour is the admin verb: one topic, one group, a step after the other.
type tour struct {
	*kadm.Client
	cl           *kgo.Client
	topic, group string
}

func admin(arguments contract.Arguments) error {
	cl, err := client(arguments, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	topic := arguments.Text("topic")
	tour := tour{Client: kadm.NewClient(cl), cl: cl, topic: topic, group: topic + "-group"}
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
		{Name: "list_group_offsets", Run: tour.groupOffsets},
		{Name: "delete_group_offsets", Run: tour.deleteGroupOffsets},
		{Name: "delete_group", Run: tour.deleteGroup},
		{Name: "describe_cluster", Run: tour.cluster},
		{Name: "delete_topic", Run: tour.deleteTopic},
	})
}

var background = context.Background()

func (tour tour) create() error {
	size := "2000000"
	_, err := tour.CreateTopic(background, 3, 1, map[string]*string{"max.message.bytes": &size}, tour.topic)
	return err
}

func (tour tour) exists() error {
	_, err := tour.CreateTopic(background, 3, 1, nil, tour.topic)
	if !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("creating it again answers %v", err)
	}
	return nil
}

func (tour tour) list() error {
	return contract.Eventually(func() error {
		topics, err := tour.ListTopics(background)
		if err == nil && !topics.Has(tour.topic) {
			err = errors.New("the topic is not in the list")
		}
		return err
	})
}

func (tour tour) describe(partitions int) error {
	return contract.Eventually(func() error {
		metadata, err := tour.Metadata(background, tour.topic)
		if err != nil {
			return err
		}
		topic := metadata.Topics[tour.topic]
		if topic.Err != nil || len(topic.Partitions) != partitions {
			return fmt.Errorf("%d partitions, not %d: %v", len(topic.Partitions), partitions, topic.Err)
		}
		brokers := map[int32]bool{}
		for _, broker := range metadata.Brokers {
			brokers[broker.NodeID] = true
		}
		for _, partition := range topic.Partitions {
			if partition.Err != nil || !brokers[partition.Leader] {
				return fmt.Errorf("partition %d is led by %d: %v", partition.Partition, partition.Leader, partition.Err)
			}
		}
		return nil
	})
}

func (tour tour) configs(size string) error {
	return contract.Eventually(func() error {
		resources, err := tour.DescribeTopicConfigs(background, tour.topic)
		if err != nil {
			return err
		}
		resource, err := resources.On(tour.topic, nil)
		if err != nil {
			return err
		}
		if resource.Err != nil {
			return resource.Err
		}
		sources := map[string]string{}
		for _, config := range resource.Configs {
			sources[config.Key] = fmt.Sprint(config.MaybeValue(), " ", config.Source)
		}
		override, standard := kmsg.ConfigSourceDynamicTopicConfig, kmsg.ConfigSourceDefaultConfig
		wanted := map[string]string{
			"max.message.bytes": fmt.Sprint(size, " ", override),
			"segment.bytes":     fmt.Sprint(1<<30, " ", standard),
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
	alter := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &size}}
	responses, err := tour.AlterTopicConfigs(background, alter, tour.topic)
	if err != nil {
		return err
	}
	response, err := responses.On(tour.topic, nil)
	if err != nil {
		return err
	}
	if response.Err != nil {
		return response.Err
	}
	return tour.configs(size)
}

func (tour tour) createPartitions() error {
	responses, err := tour.UpdatePartitions(background, 5, tour.topic)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		return err
	}
	return tour.describe(5)
}

func (tour tour) produce() error {
	for range 10 {
		record := &kgo.Record{Topic: tour.topic, Value: []byte("tour")}
		if err := tour.cl.ProduceSync(background, record).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

func (tour tour) offsets(earliest, latest int64) error {
	starts, err := tour.ListStartOffsets(background, tour.topic)
	if err != nil {
		return err
	}
	ends, err := tour.ListEndOffsets(background, tour.topic)
	if err != nil {
		return err
	}
	start, end := starts[tour.topic][0], ends[tour.topic][0]
	if err := errors.Join(start.Err, end.Err); err != nil {
		return err
	}
	if start.Offset != earliest || end.Offset != latest {
		return fmt.Errorf("the offsets are %d to %d, not %d to %d", start.Offset, end.Offset, earliest, latest)
	}
	return nil
}

func (tour tour) deleteRecords() error {
	before := kadm.Offsets{}
	before.Add(kadm.Offset{Topic: tour.topic, Partition: 0, At: 4})
	responses, err := tour.DeleteRecords(background, before)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		return err
	}
	if low := responses[tour.topic][0].LowWatermark; low != 4 {
		return fmt.Errorf("the low watermark is %d, not 4", low)
	}
	return tour.offsets(4, 10)
}

func (tour tour) commit() error {
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: tour.topic, Partition: 0, At: 7, LeaderEpoch: -1})
	return tour.CommitAllOffsets(background, tour.group, offsets)
}

func (tour tour) listed() (bool, error) {
	groups, err := tour.ListGroups(background)
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
	groups, err := tour.DescribeGroups(background, tour.group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return err
	}
	if group := groups[tour.group]; group.State != "Empty" || len(group.Members) != 0 {
		return fmt.Errorf("the group is %s with %d members", group.State, len(group.Members))
	}
	return nil
}

func (tour tour) committed() (int64, bool, error) {
	responses, err := tour.FetchOffsets(background, tour.group)
	if err == nil {
		err = responses.Error()
	}
	response, found := responses.Lookup(tour.topic, 0)
	return response.At, found, err
}

func (tour tour) groupOffsets() error {
	offset, found, err := tour.committed()
	if err == nil && (!found || offset != 7) {
		err = fmt.Errorf("the committed offset is %d (found: %t), not 7", offset, found)
	}
	return err
}

func (tour tour) deleteGroupOffsets() error {
	partitions := kadm.TopicsSet{}
	partitions.Add(tour.topic, 0)
	responses, err := tour.DeleteOffsets(background, tour.group, partitions)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		return err
	}
	if offset, found, err := tour.committed(); err != nil || found {
		return fmt.Errorf("the committed offset %d is still there (%w)", offset, err)
	}
	return nil
}

func (tour tour) deleteGroup() error {
	if _, err := tour.DeleteGroup(background, tour.group); err != nil {
		return err
	}
	found, err := tour.listed()
	if err == nil && found {
		err = errors.New("the group is still in the list")
	}
	return err
}

func (tour tour) cluster() error {
	metadata, err := tour.BrokerMetadata(background)
	if err == nil && (metadata.Cluster == "" || len(metadata.Brokers) != 1) {
		err = fmt.Errorf("cluster %q has %d nodes", metadata.Cluster, len(metadata.Brokers))
	}
	return err
}

func (tour tour) deleteTopic() error {
	if _, err := tour.DeleteTopic(background, tour.topic); err != nil {
		return err
	}
	return contract.Eventually(func() error {
		topics, err := tour.ListTopics(background)
		if err == nil && topics.Has(tour.topic) {
			err = errors.New("the topic is still in the list")
		}
		return err
	})
}
