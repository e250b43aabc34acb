package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"highwater.invalid/interop/contract"
)

// batch is how many records are taken at once: so few that a member which is killed has committed many times.
const batch = 500

// member follows what the group gives to it and takes from it.
type member struct {
	mutex sync.Mutex
	owned map[int32]bool
	// What was printed and is not committed.
	pending []*kgo.Record
}

func (member *member) assigned(partitions []int32) {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	for _, partition := range partitions {
		member.owned[partition] = true
	}
	contract.Print(map[string][]int32{"assigned": keys(member.owned)})
}

func (member *member) revoked(partitions []int32) {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	gone := map[int32]bool{}
	for _, partition := range partitions {
		delete(member.owned, partition)
		gone[partition] = true
	}
	member.pending = slices.DeleteFunc(member.pending, func(record *kgo.Record) bool { return gone[record.Partition] })
	if len(gone) > 0 {
		contract.Print(map[string][]int32{"revoked": keys(gone)})
	}
}

func (member *member) options(arguments contract.Arguments) ([]kgo.Opt, error) {
	topic := arguments.Text("topic")
	session := time.Duration(arguments.NumberOr("session_ms", 6000)) * time.Millisecond
	options := []kgo.Opt{
		kgo.ConsumerGroup(arguments.Text("group")),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(session / 3),
		// What is read is committed before it can belong to another.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			member.assigned(added[topic])
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			member.revoked(lost[topic])
		}),
	}
	switch strategy := arguments.TextOr("strategy", ""); strategy {
	case "":
	case "range":
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	case "cooperative":
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	default:
		return nil, fmt.Errorf("there is no strategy %s", strategy)
	}
	if instance := arguments.TextOr("instance", ""); instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	return options, nil
}

func group(arguments contract.Arguments) error {
	member := &member{owned: map[int32]bool{}}
	options, err := member.options(arguments)
	if err != nil {
		return err
	}
	cl, err := client(arguments, options...)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	contract.AtEndOfInput(cancel)
	pause := time.Duration(arguments.NumberOr("pause_ms", 0)) * time.Millisecond
	for left := arguments.NumberOr("until", 1<<62); left > 0 && ctx.Err() == nil; {
		records, err := poll(ctx, cl, int(min(left, batch)))
		if err != nil {
			return err
		}
		if err := member.commit(cl, records); err != nil {
			return err
		}
		cl.AllowRebalance()
		left -= int64(len(records))
		if pause > 0 {
			time.Sleep(pause)
		}
	}
	return nil
}

// poll waits a little only: what a rebalance kept from being committed is tried again.
func poll(ctx context.Context, cl *kgo.Client, most int) ([]*kgo.Record, error) {
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	fetches := cl.PollRecords(short, most)
	if short.Err() == nil {
		if err := fetches.Err(); err != nil {
			return nil, err
		}
	}
	records := fetches.Records()
	for _, record := range records {
		contract.Print(map[string]any{
			"partition": record.Partition, "offset": record.Offset, "value": record.Value,
		})
	}
	return records, nil
}

// commit answers for what it prints: what is refused amid a rebalance stays pending as long as its partition is owned.
func (member *member) commit(cl *kgo.Client, records []*kgo.Record) error {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	member.pending = append(member.pending, records...)
	if len(member.pending) == 0 {
		return nil
	}
	err := cl.CommitRecords(context.Background(), member.pending...)
	moved := []error{kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.UnknownMemberID}
	for _, reason := range moved {
		if errors.Is(err, reason) {
			fmt.Fprintln(os.Stderr, "not committed:", err)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	next := map[string]int64{}
	for _, record := range member.pending {
		next[strconv.Itoa(int(record.Partition))] = record.Offset + 1
	}
	member.pending = nil
	contract.Print(map[string]any{"committed": next})
	return nil
}
