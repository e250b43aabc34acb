// The verb `admin` of Driver.java: each call of the Java admin client that the contract names, with its answer looked
// at. An answer that is wrong ends it with a sentence.

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;

final class DriverAdmin {
    private final String bootstrap;
    private final String topic;
    private final String group;
    private final TopicPartition first;
    private final ConfigResource resource;
    private final Admin admin;

    DriverAdmin(String bootstrap, String topic) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        group = topic + "-group";
        first = new TopicPartition(topic, 0);
        resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    /** What a step does; it throws what is wrong. */
    private interface Step {
        void run() throws Exception;
    }

    void run() throws Exception {
        try (Admin closing = admin) {
            step("create", this::create);
            step("exists", this::exists);
            step("list", () -> eventually(() -> check(topics().contains(topic), "the topic is not listed")));
            step("describe", () -> eventually(this::describe));
            step("describe_configs", () -> eventually(this::describeConfigs));
            step("alter_configs", this::alterConfigs);
            step("create_partitions", this::createPartitions);
            step("produce", this::produce);
            step("list_offsets", () -> checkOffsets(0, 10));
            step("delete_records", this::deleteRecords);
            step("commit", () -> admin.alterConsumerGroupOffsets(group, Map.of(first, new OffsetAndMetadata(7)))
                    .all().get());
            step("list_groups", () -> check(groups().contains(group), "the group is not among " + groups()));
            step("describe_group", this::describeGroup);
            step("list_group_offsets", this::listGroupOffsets);
            step("delete_group_offsets", this::deleteGroupOffsets);
            step("delete_group", this::deleteGroup);
            step("describe_cluster", this::describeCluster);
            step("delete_topic", this::deleteTopic);
        }
    }

    private static void step(String name, Step step) throws Exception {
        try {
            step.run();
        } catch (Exception problem) {
            throw new Exception("step " + name + ": " + problem, problem);
        }
        ObjectNode line = Driver.JSON.createObjectNode().put("step", name).put("ok", true);
        Driver.print(line);
    }

    /** Brokers other than the controller learn of a change a little later. */
    private static void eventually(Step step) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (true) {
            try {
                step.run();
                return;
            } catch (Exception problem) {
                if (System.nanoTime() > deadline) {
                    throw problem;
                }
            }
            Thread.sleep(20);
        }
    }

    private static void check(boolean holds, String sentence) throws Exception {
        if (!holds) {
            throw new Exception(sentence);
        }
    }

    private void create() throws Exception {
        NewTopic wanted = new NewTopic(topic, Optional.of(3), Optional.empty())
                .configs(Map.of("max.message.bytes", "2000000"));
        admin.createTopics(List.of(wanted)).all().get();
    }

    private void exists() throws Exception {
        try {
            admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1))).all().get();
        } catch (ExecutionException refused) {
            check(refused.getCause() instanceof TopicExistsException, "creating again ends with " + refused);
            return;
        }
        throw new Exception("the topic could be created twice");
    }

    private TopicDescription description() throws Exception {
        return admin.describeTopics(Set.of(topic)).allTopicNames().get().get(topic);
    }

    private Set<String> topics() throws Exception {
        return admin.listTopics().names().get();
    }

    private void describe() throws Exception {
        TopicDescription description = description();
        check(description.partitions().size() == 3, "there are not 3 partitions: " + description);
        check(!description.isInternal(), "the topic is internal");
        Collection<Node> live = admin.describeCluster().nodes().get();
        for (TopicPartitionInfo partition : description.partitions()) {
            check(live.contains(partition.leader()), partition + " is not led by one of " + live);
        }
    }

    private ConfigEntry entry(String name) throws Exception {
        Config config = admin.describeConfigs(Set.of(resource)).all().get().get(resource);
        return config.get(name);
    }

    private void describeConfigs() throws Exception {
        ConfigEntry changed = entry("max.message.bytes");
        boolean isOverride = changed.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG;
        check(changed.value().equals("2000000") && isOverride, "max.message.bytes is " + changed);
        check(entry("segment.bytes").isDefault(), "segment.bytes is " + entry("segment.bytes"));
    }

    private void alterConfigs() throws Exception {
        ConfigEntry wanted = new ConfigEntry("max.message.bytes", "3000000");
        AlterConfigOp set = new AlterConfigOp(wanted, AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        eventually(() -> {
            ConfigEntry changed = entry("max.message.bytes");
            check(changed.value().equals("3000000"), "max.message.bytes is " + changed);
        });
    }

    private void createPartitions() throws Exception {
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
        eventually(() -> {
            TopicDescription description = description();
            check(description.partitions().size() == 5, "there are not 5 partitions: " + description);
        });
    }

    private void produce() throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = Driver.producer(bootstrap, Map.of())) {
            for (int i = 0; i < 10; i++) {
                byte[] value = Integer.toString(i).getBytes(StandardCharsets.US_ASCII);
                producer.send(new ProducerRecord<>(topic, 0, null, value)).get();
            }
        }
    }

    private void checkOffsets(long earliest, long latest) throws Exception {
        long begin = admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first).get().offset();
        long end = admin.listOffsets(Map.of(first, OffsetSpec.latest())).partitionResult(first).get().offset();
        check(begin == earliest, "the earliest offset is " + begin);
        check(end == latest, "the latest offset is " + end);
    }

    private void deleteRecords() throws Exception {
        Map<TopicPartition, RecordsToDelete> before = Map.of(first, RecordsToDelete.beforeOffset(4));
        long low = admin.deleteRecords(before).lowWatermarks().get(first).get().lowWatermark();
        check(low == 4, "the low watermark is " + low);
        checkOffsets(4, 10);
    }

    private List<String> groups() throws Exception {
        return admin.listGroups().all().get().stream().map(GroupListing::groupId).toList();
    }

    private void describeGroup() throws Exception {
        GroupState state = admin.describeConsumerGroups(Set.of(group)).describedGroups().get(group).get().groupState();
        check(state == GroupState.EMPTY, "the group is " + state);
    }

    private Map<TopicPartition, OffsetAndMetadata> committed() throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
    }

    private void listGroupOffsets() throws Exception {
        Map<TopicPartition, OffsetAndMetadata> committed = committed();
        check(committed.keySet().equals(Set.of(first)), "offsets are committed for " + committed);
        check(committed.get(first).offset() == 7, "the offset is " + committed);
    }

    private void deleteGroupOffsets() throws Exception {
        admin.deleteConsumerGroupOffsets(group, Set.of(first)).all().get();
        Map<TopicPartition, OffsetAndMetadata> committed = committed();
        check(committed.get(first) == null, "the offset is still there: " + committed);
    }

    private void deleteGroup() throws Exception {
        // A group without offsets may be gone by itself, so that it gets one again.
        admin.alterConsumerGroupOffsets(group, Map.of(first, new OffsetAndMetadata(7))).all().get();
        admin.deleteConsumerGroups(Set.of(group)).all().get();
        check(!groups().contains(group), "the group is still listed");
    }

    private void describeCluster() throws Exception {
        DescribeClusterResult cluster = admin.describeCluster();
        check(!cluster.clusterId().get().isEmpty(), "the cluster has no id");
        check(cluster.nodes().get().size() == 1, "the nodes are " + cluster.nodes().get());
        check(cluster.controller().get() != null, "there is no controller");
    }

    private void deleteTopic() throws Exception {
        admin.deleteTopics(Set.of(topic)).all().get();
        eventually(() -> check(!topics().contains(topic), "the topic is still listed"));
    }
}
