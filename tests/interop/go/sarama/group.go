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

	"github.com/IBM/sarama"

	"highwater.invalid/interop/contract"
)

// batch is how many records are taken at once: so few that a member which is killed has committed many times.
const batch = 500

// patience is how long a member tries to be in its group again.
const patience = 120 * time.Second

// member reads one partition at a time, whatever the library does at once.
type member struct {
	sarama.ClusterAdmin
	topic, group string
	pause        time.Duration
	finish       context.CancelFunc

	mutex sync.Mutex
	left  int64
	owned map[int32]bool
}

func groupConfig(arguments contract.Arguments) (*sarama.Config, error) {
	config := sarama.NewConfig()
	session := time.Duration(arguments.NumberOr("session_ms", 6000)) * time.Millisecond
	config.Consumer.Group.Session.Timeout = session
	config.Consumer.Group.Heartbeat.Interval = session / 3
	config.Consumer.Group.InstanceId = arguments.TextOr("instance", "")
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Return.Errors = true
	switch strategy := arguments.TextOr("strategy", ""); strategy {
	case "":
	case "range":
		config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	case "cooperative":
		cooperative := sarama.NewBalanceStrategyCooperativeSticky()
		config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{cooperative}
	default:
		return nil, fmt.Errorf("there is no strategy %s", strategy)
	}
	return config, nil
}

func group(arguments contract.Arguments) error {
	config, err := groupConfig(arguments)
	if err != nil {
		return err
	}
	bootstrap := []string{arguments.Bootstrap}
	observer, err := sarama.NewClusterAdmin(bootstrap, sarama.NewConfig())
	if err != nil {
		return err
	}
	defer observer.Close()
	consumers, err := sarama.NewConsumerGroup(bootstrap, arguments.Text("group"), config)
	if err != nil {
		return err
	}
	go func() {
		for err := range consumers.Errors() {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	ctx, finish := context.WithCancel(context.Background())
	defer finish()
	contract.AtEndOfInput(finish)
	member := &member{
		ClusterAdmin: observer,
		topic:        arguments.Text("topic"),
		group:        arguments.Text("group"),
		pause:        time.Duration(arguments.NumberOr("pause_ms", 0)) * time.Millisecond,
		finish:       finish,
		left:         arguments.NumberOr("until", 1<<62),
	}
	return errors.Join(member.run(ctx, consumers), consumers.Close())
}

// run joins again after each session, as the library wants it.
func (member *member) run(ctx context.Context, consumers sarama.ConsumerGroup) error {
	var failing time.Time
	for ctx.Err() == nil {
		err := consumers.Consume(ctx, []string{member.topic}, member)
		switch {
		case err == nil || ctx.Err() != nil:
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > patience:
			return fmt.Errorf("no session since %s: %w", patience, err)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "session:", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// Setup begins a session.
func (member *member) Setup(session sarama.ConsumerGroupSession) error {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	member.owned = nil
	member.showAssignment(session)
	return nil
}

// showAssignment prints what is assigned if it is news: a cooperative session goes on with other partitions.
func (member *member) showAssignment(session sarama.ConsumerGroupSession) {
	claims := map[int32]bool{}
	for _, partition := range session.Claims()[member.topic] {
		claims[partition] = true
	}
	if member.owned == nil || !slices.Equal(keys(claims), keys(member.owned)) {
		contract.Print(map[string][]int32{"assigned": keys(claims)})
	}
	member.owned = claims
}

// Cleanup ends a session.
func (member *member) Cleanup(sarama.ConsumerGroupSession) error {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	if len(member.owned) > 0 {
		contract.Print(map[string][]int32{"revoked": keys(member.owned)})
	}
	member.owned = map[int32]bool{}
	return nil
}

// ConsumeClaim reads a partition until it is taken away.
func (member *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	member.mutex.Lock()
	member.showAssignment(session)
	member.mutex.Unlock()
	for {
		select {
		case first, open := <-claim.Messages():
			if !open {
				member.giveUp(session, claim.Partition())
				return nil
			}
			if err := member.handle(session, claim, first); err != nil {
				return err
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

// giveUp is for what a cooperative session loses; at the end of any session Cleanup says it for all.
func (member *member) giveUp(session sarama.ConsumerGroupSession, partition int32) {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	if session.Context().Err() == nil && member.owned[partition] {
		delete(member.owned, partition)
		contract.Print(map[string][]int32{"revoked": {partition}})
	}
}

// handle prints and commits the first record and what came with it.
func (member *member) handle(
	session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim, first *sarama.ConsumerMessage,
) error {
	member.mutex.Lock()
	defer member.mutex.Unlock()
	if member.left == 0 {
		return nil
	}
	next := int64(0)
	most := min(batch, member.left)
	for message, taken := first, int64(0); message != nil; {
		contract.Print(map[string]any{
			"partition": message.Partition, "offset": message.Offset, "value": message.Value,
		})
		session.MarkMessage(message, "")
		next, message = message.Offset+1, nil
		if member.left, taken = member.left-1, taken+1; taken < most {
			select {
			case message = <-claim.Messages():
			default:
			}
		}
	}
	err := member.commit(session, claim.Partition(), next)
	time.Sleep(member.pause)
	if member.left == 0 {
		member.finish()
	}
	return err
}

// commit asks afterwards what is committed: the library does not say whether a commit was a success.
func (member *member) commit(session sarama.ConsumerGroupSession, partition int32, next int64) error {
	session.Commit()
	asked := map[string][]int32{member.topic: {partition}}
	answer, err := member.ListConsumerGroupOffsets(member.group, asked)
	if err != nil {
		fmt.Fprintln(os.Stderr, "not known to be committed:", err)
		return nil
	}
	block := answer.GetBlock(member.topic, partition)
	if block == nil || block.Err != sarama.ErrNoError || block.Offset < next {
		fmt.Fprintf(os.Stderr, "not committed: %d of partition %d: %+v\n", next, partition, block)
		return nil
	}
	contract.Print(map[string]any{"committed": map[string]int64{strconv.Itoa(int(partition)): next}})
	return nil
}
