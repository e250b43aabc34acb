// franz drives franz-go, with the library's defaults but for what a verb names.
//
//	produce BOOTSTRAP topic= codec= file=                     each record of the file, acknowledged
//	consume BOOTSTRAP topic= partitions= from= [fetch_bytes=]   by assignment, to the ends at the start
//	group BOOTSTRAP topic= group= [until= session_ms= strategy= instance= pause_ms=]
//	idempotent BOOTSTRAP topic= count=                        numbers through restarts of the broker
//	admin BOOTSTRAP topic=                                    every step
//	version BOOTSTRAP
//
// Left out: nothing.
package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"highwater.invalid/interop/contract"
)

func main() {
	contract.Main(map[string]func(contract.Arguments) error{
		"produce":    produce,
		"consume":    consume,
		"group":      group,
		"idempotent": idempotent,
		"admin":      admin,
		"version": func(contract.Arguments) error {
			version := contract.Version("github.com/twmb/franz-go")
			contract.Print(map[string]string{"client": "franz-go", "version": version})
			return nil
		},
	})
}

func client(arguments contract.Arguments, options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(arguments.Bootstrap))...)
}

func codec(name string) (kgo.CompressionCodec, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}
	codec, found := codecs[name]
	if !found {
		return codec, fmt.Errorf("there is no codec %s", name)
	}
	return codec, nil
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
	options := []kgo.Opt{
		kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}
	if largest := contract.Largest(records); largest > 1_000_012 {
		options = append(options, kgo.ProducerBatchMaxBytes(int32(largest)))
	}
	cl, err := client(arguments, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	sent := make([]*kgo.Record, len(records))
	for i, record := range records {
		sent[i] = &kgo.Record{
			Topic:     arguments.Text("topic"),
			Partition: record.Partition,
			Key:       record.Key,
			Value:     record.Value,
		}
		if record.Timestamp != 0 {
			sent[i].Timestamp = time.UnixMilli(record.Timestamp)
		}
		for _, header := range record.Headers {
			sent[i].Headers = append(sent[i].Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
	}
	if err := cl.ProduceSync(context.Background(), sent...).FirstErr(); err != nil {
		return err
	}
	for _, record := range sent {
		contract.Print(map[string]int64{"partition": int64(record.Partition), "offset": record.Offset})
	}
	return nil
}

// shown is a record as the contract writes it.
func shown(record *kgo.Record) contract.Record {
	headers := []contract.Header{}
	for _, header := range record.Headers {
		headers = append(headers, contract.Header{Name: header.Key, Value: header.Value})
	}
	return contract.Record{
		Partition: record.Partition,
		Offset:    &record.Offset,
		Key:       record.Key,
		Value:     record.Value,
		Headers:   headers,
		Timestamp: record.Timestamp.UnixMilli(),
	}
}

func consume(arguments contract.Arguments) error {
	topic, partitions := arguments.Text("topic"), int32(arguments.Number("partitions"))
	// Control records count for the position, and are not shown.
	options := []kgo.Opt{kgo.KeepControlRecords()}
	if most := arguments.NumberOr("fetch_bytes", 0); most > 0 {
		options = append(options, kgo.FetchMaxPartitionBytes(int32(most)))
	}
	cl, err := client(arguments, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	starts, ends, err := bounds(cl, topic, arguments.From())
	if err != nil {
		return err
	}
	left := map[int32]int64{}
	offsets := map[int32]kgo.Offset{}
	for partition := range partitions {
		start, end := starts[partition], ends[partition]
		if start < end {
			left[partition] = end
			offsets[partition] = kgo.NewOffset().At(start)
		}
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets})
	read := make([][]*kgo.Record, partitions)
	for len(left) > 0 {
		fetches := cl.PollFetches(context.Background())
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			end, reading := left[record.Partition]
			if reading && record.Offset < end && !record.Attrs.IsControl() {
				read[record.Partition] = append(read[record.Partition], record)
			}
			if record.Offset+1 >= end {
				delete(left, record.Partition)
			}
		})
	}
	for _, records := range read {
		for _, record := range records {
			contract.Print(shown(record))
		}
	}
	return nil
}

// bounds are the offsets between which the verb consume reads, by partition.
func bounds(cl *kgo.Client, topic string, from contract.Start) (starts, ends map[int32]int64, err error) {
	ctx, adm := context.Background(), kadm.NewClient(cl)
	offsets := func(listed kadm.ListedOffsets, err error) (map[int32]int64, error) {
		if err == nil {
			err = listed.Error()
		}
		found := map[int32]int64{}
		for partition, offset := range listed[topic] {
			found[partition] = offset.Offset
		}
		return found, err
	}
	if ends, err = offsets(adm.ListEndOffsets(ctx, topic)); err != nil {
		return nil, nil, err
	}
	if from.TimeMs != nil {
		starts, err = offsets(adm.ListOffsetsAfterMilli(ctx, *from.TimeMs, topic))
	} else {
		starts, err = offsets(adm.ListStartOffsets(ctx, topic))
	}
	if !from.Beginning && from.TimeMs == nil {
		for partition := range starts {
			starts[partition] = from.Offset
		}
	}
	return starts, ends, err
}

func idempotent(arguments contract.Arguments) error {
	// Idempotence and retries without end are what the library does by default.
	cl, err := client(arguments, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	for i := range arguments.Number("count") {
		value := strconv.FormatInt(i, 10)
		record := &kgo.Record{Topic: arguments.Text("topic"), Value: []byte(value)}
		cl.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				cancel(fmt.Errorf("record %s: %w", value, err))
				return
			}
			contract.Print(map[string]int64{"acked": i})
		})
	}
	if err := cl.Flush(ctx); ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
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
