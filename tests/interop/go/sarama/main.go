// sarama drives sarama, with the library's defaults but for what a verb names; so it speaks what Kafka 2.8 spoke.
//
//	produce BOOTSTRAP topic= codec= file=                     each record of the file, acknowledged
//	consume BOOTSTRAP topic= partitions= from= [fetch_bytes=]   by assignment, to the ends at the start
//	group BOOTSTRAP topic= group= [until= session_ms= strategy= instance= pause_ms=]
//	idempotent BOOTSTRAP topic= count=                        numbers through restarts of the broker
//	admin BOOTSTRAP topic=                                    every step
//	version BOOTSTRAP
//
// Left out: a partition that ends in a marker of a transaction. The library hides the marker and its offset, so that
// consume would wait for it.
package main

import (
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"highwater.invalid/interop/contract"
)

// outageRetries times the library's 100 ms (250 ms for metadata) is longer than any broker of a test is away.
const outageRetries = 2000

func main() {
	contract.Main(map[string]func(contract.Arguments) error{
		"produce":    produce,
		"consume":    consume,
		"group":      group,
		"idempotent": idempotent,
		"admin":      admin,
		"version": func(contract.Arguments) error {
			version := contract.Version("github.com/IBM/sarama")
			contract.Print(map[string]string{"client": "sarama", "version": version})
			return nil
		},
	})
}

func codec(name string) (sarama.CompressionCodec, error) {
	var codec sarama.CompressionCodec
	err := codec.UnmarshalText([]byte(name))
	return codec, err
}

func produce(arguments contract.Arguments) error {
	codec, err := codec(arguments.Text("codec"))
	if err != nil {
		return err
	}
	records, err := contract.Records(arguments.Text("file"))
	if err != nil {
		return err
	}
	config := sarama.NewConfig()
	config.Producer.Compression = codec
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true
	config.Producer.MaxMessageBytes = max(config.Producer.MaxMessageBytes, contract.Largest(records))
	producer, err := sarama.NewSyncProducer([]string{arguments.Bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	messages := make([]*sarama.ProducerMessage, len(records))
	for i, record := range records {
		messages[i] = message(arguments.Text("topic"), record)
	}
	if err := producer.SendMessages(messages); err != nil {
		return err
	}
	for _, message := range messages {
		contract.Print(map[string]int64{"partition": int64(message.Partition), "offset": message.Offset})
	}
	return nil
}

func message(topic string, record contract.Record) *sarama.ProducerMessage {
	message := &sarama.ProducerMessage{Topic: topic, Partition: record.Partition}
	// A null is no encoder at all.
	if record.Key != nil {
		message.Key = sarama.ByteEncoder(record.Key)
	}
	if record.Value != nil {
		message.Value = sarama.ByteEncoder(record.Value)
	}
	if record.Timestamp != 0 {
		message.Timestamp = time.UnixMilli(record.Timestamp)
	}
	for _, header := range record.Headers {
		message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
	}
	return message
}

// shown is a record as the contract writes it.
func shown(message *sarama.ConsumerMessage) contract.Record {
	headers := []contract.Header{}
	for _, header := range message.Headers {
		headers = append(headers, contract.Header{Name: string(header.Key), Value: header.Value})
	}
	return contract.Record{
		Partition: message.Partition,
		Offset:    &message.Offset,
		Key:       message.Key,
		Value:     message.Value,
		Headers:   headers,
		Timestamp: message.Timestamp.UnixMilli(),
	}
}

func consume(arguments contract.Arguments) error {
	topic := arguments.Text("topic")
	config := sarama.NewConfig()
	config.Consumer.Fetch.Default = int32(arguments.NumberOr("fetch_bytes", int64(config.Consumer.Fetch.Default)))
	client, err := sarama.NewClient([]string{arguments.Bootstrap}, config)
	if err != nil {
		return err
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return err
	}
	defer consumer.Close()
	partitions := int32(arguments.Number("partitions"))
	ends := make([]int64, partitions)
	for partition := range partitions {
		if ends[partition], err = client.GetOffset(topic, partition, sarama.OffsetNewest); err != nil {
			return err
		}
	}
	for partition := range partitions {
		start, err := start(client, topic, partition, arguments.From())
		if err != nil {
			return err
		}
		if start < 0 || start >= ends[partition] {
			continue
		}
		if err := read(consumer, topic, partition, start, ends[partition]); err != nil {
			return err
		}
	}
	return nil
}

// start is negative if there is nothing as late as the time asked for.
func start(client sarama.Client, topic string, partition int32, from contract.Start) (int64, error) {
	switch {
	case from.TimeMs != nil:
		return client.GetOffset(topic, partition, *from.TimeMs)
	case from.Beginning:
		return client.GetOffset(topic, partition, sarama.OffsetOldest)
	default:
		return from.Offset, nil
	}
}

func read(consumer sarama.Consumer, topic string, partition int32, start, end int64) error {
	claim, err := consumer.ConsumePartition(topic, partition, start)
	if err != nil {
		return err
	}
	defer claim.Close()
	for message := range claim.Messages() {
		if message.Offset < end {
			contract.Print(shown(message))
		}
		if message.Offset+1 >= end {
			return nil
		}
	}
	return fmt.Errorf("partition %d ended before offset %d", partition, end)
}

func idempotent(arguments contract.Arguments) error {
	config := sarama.NewConfig()
	config.Producer.Idempotent = true
	// What the library asks of an idempotent producer.
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	config.Producer.Retry.Max = outageRetries
	config.Metadata.Retry.Max = outageRetries
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true
	producer, err := sarama.NewAsyncProducer([]string{arguments.Bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.AsyncClose()
	topic, count := arguments.Text("topic"), arguments.Number("count")
	go func() {
		for i := range count {
			value := sarama.StringEncoder(strconv.FormatInt(i, 10))
			producer.Input() <- &sarama.ProducerMessage{Topic: topic, Value: value, Metadata: i}
		}
	}()
	for range count {
		select {
		case message := <-producer.Successes():
			contract.Print(map[string]any{"acked": message.Metadata})
		case failure := <-producer.Errors():
			return fmt.Errorf("record %v: %w", failure.Msg.Metadata, failure.Err)
		}
	}
	return nil
}

// keys are those of a map in order.
func keys[V any](values map[int32]V) []int32 {
	found := make([]int32, 0, len(values))
	for key := range values {
		found = append(found, key)
	}
	sort.Slice(found, func(i, j int) bool { return found[i] < found[j] })
	return found
}
