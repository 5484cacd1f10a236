package motiontest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/motion"
)

// Options are what a test wants of the interconnects it runs on. Zero values
// mean the type's defaults.
type Options struct {
	SetupTimeout    time.Duration
	TransmitTimeout time.Duration
	MaxPacket       int
}

// Node is one executor.
type Node struct {
	motion.Interconnect
	Peer motion.Peer // as others reach it, Addr included
}

// Factory makes n executors that can reach each other, with different pids.
// Some may be of the same instance.
// It leaves closing what it made to t.Cleanup; closing an Interconnect twice
// must be allowed.
type Factory func(t *testing.T, n int, opt Options) []Node

// limit is how long any one test may take. Reaching it means that something
// hangs.
const limit = 30 * time.Second

// prompt is how long something may take that must not wait for anything: far less
// than the timeouts of types, and enough for a machine that does much else.
const prompt = 5 * time.Second

// testCase is one of the tests.
type testCase struct {
	name string
	run  func(*env)
}

// patient are the tests that hold however long things take.
var patient = []testCase{
	{"FanIn", fanIn},
	{"FanOut", fanOut},
	{"Broadcast", broadcast},
	{"AllToAll", allToAll},
	{"Sizes", sizes},
	{"SmallPackets", smallPackets},
	{"HugeTuples", hugeTuples},
	{"Filled", filled},
	{"ZeroLength", zeroLength},
	{"EmptyStreams", emptyStreams},
	{"SomeEmpty", someEmpty},
	{"NoStreams", noStreams},
	{"ReceiveFrom", receiveFrom},
	{"MixedReceive", mixedReceive},
	{"SenderFirst", senderFirst},
	{"ReceiverFirst", receiverFirst},
	{"SameKey", sameKey},
	{"RescanStopped", rescanStopped},
	{"ManyMotions", manyMotions},
	{"DependencyOrder", dependencyOrder},
	{"Opposite", opposite},
	{"SlowReceivers", slowReceivers},
	{"EarlyStop", earlyStop},
	{"StopOfOne", stopOfOne},
	{"CloseIsStop", closeIsStop},
	{"UseAfterClose", useAfterClose},
}

// prompted are the tests that something happens soon, or does not happen.
var prompted = []testCase{
	{"LonePacket", lonePacket},
	{"Flush", flush},
	{"SlowReceiver", slowReceiver},
	{"SlowAmongFast", slowAmongFast},
	{"StopWhileSenderIsBusyElsewhere", stopIdle},
	{"CancelSetup", cancelSetup},
	{"CancelSend", cancelSend},
	{"CancelBroadcast", cancelBroadcast},
	{"CancelReceive", cancelReceive},
	{"CancelSenderClose", cancelSenderClose},
	{"CancelReceiverClose", cancelReceiverClose},
	{"DeadSender", deadSender},
	{"DeadSenderOfMany", deadSenderOfMany},
	{"DeadInTuple", deadInTuple},
	{"DeadReceiver", deadReceiver},
	{"DeadReceiverOfMany", deadReceiverOfMany},
	{"DeadExecutor", deadExecutor},
	{"RescanFailed", rescanFailed},
	{"AbortUnblocks", abortUnblocks},
	{"TeardownTimeout", teardownTimeout},
	{"InterconnectClose", interconnectClose},
}

// short are the tests in which a sender has closed before it had to send
// anything, so that the receiver's whole stream was there at once.
var short = []testCase{
	{"ZeroLength", zeroLength},
	{"EmptyStreams", emptyStreams},
	{"SomeEmpty", someEmpty},
	{"SenderFirst", senderFirst},
	{"ReceiverFirst", receiverFirst},
	{"UseAfterClose", useAfterClose},
	{"CancelReceive", cancelReceive},
}

// Run runs all tests on interconnects of one type, and looks for goroutines
// left behind after each.
func Run(t *testing.T, f Factory) {
	run(t, f, patient)
	run(t, f, prompted)
}

// RunPatient runs those tests of Run that hold however long things take, on a
// network that loses packets for example. It does so in bubbles of package
// synctest, where waiting takes no time; so all that f makes, the network too,
// must be in memory.
func RunPatient(t *testing.T, f Factory) {
	for _, c := range patient {
		t.Run(c.name, func(t *testing.T) {
			// It also fails the test when goroutines are left.
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				t.Cleanup(cancel)
				c.run(&env{T: t, factory: f, ctx: ctx})
			})
		})
	}
}

// RunShort runs those tests of Run that have short streams, which a type may
// carry in a way of their own.
func RunShort(t *testing.T, f Factory) { run(t, f, short) }

func run(t *testing.T, f Factory, tests []testCase) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Run("", func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				t.Cleanup(cancel)
				c.run(&env{T: t, factory: f, ctx: ctx})
			})
			goleak.VerifyNone(t, before)
		})
	}
}

// env is what a test has.
type env struct {
	*testing.T
	factory Factory
	ctx     context.Context
}

func (e *env) nodes(n int) []Node { return e.factory(e.T, n, Options{}) }

var commands atomic.Uint32

// id returns a motion that no other test uses.
func id() motion.ID {
	return motion.ID{Session: 7, Command: commands.Add(1), SendSlice: 2, RecvSlice: 1}
}

func peers(nodes []Node) []motion.Peer {
	out := make([]motion.Peer, len(nodes))
	for i, n := range nodes {
		out[i] = n.Peer
	}
	return out
}

// open opens both ends of a motion.
func (e *env) open(id motion.ID, from, to []Node) ([]motion.Sender, []motion.Receiver) {
	e.Helper()
	s, r := make([]motion.Sender, len(from)), make([]motion.Receiver, len(to))
	var g errgroup.Group
	for i, n := range to {
		g.Go(func() (err error) {
			r[i], err = n.Receive(e.ctx, id, n.Peer, peers(from))
			return err
		})
	}
	for i, n := range from {
		g.Go(func() (err error) {
			s[i], err = n.Send(e.ctx, id, n.Peer, peers(to))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		e.Fatalf("opening a motion: %v", err)
	}
	return s, r
}

// pair opens a motion from one node to another.
func (e *env) pair() (motion.Sender, motion.Receiver) {
	e.Helper()
	n := e.nodes(2)
	s, r := e.open(id(), n[:1], n[1:])
	return s[0], r[0]
}

// do runs the functions at the same time and fails the test with their first
// error.
func (e *env) do(fs ...func() error) {
	e.Helper()
	var g errgroup.Group
	for _, f := range fs {
		g.Go(f)
	}
	if err := g.Wait(); err != nil {
		e.Fatal(err)
	}
}

// soon fails the test when f takes longer than prompt.
func (e *env) soon(what string, f func()) {
	e.Helper()
	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		if d := time.Since(start); d > prompt {
			e.Errorf("%s took %v", what, d)
		}
	case <-time.After(limit):
		e.Fatalf("%s hangs", what)
	}
}

// blocked fails the test when f does not wait. It returns f's channel of
// results.
func (e *env) blocked(what string, f func() error) <-chan error {
	e.Helper()
	c := make(chan error, 1)
	go func() { c <- f() }()
	select {
	case err := <-c:
		e.Fatalf("%s did not wait: %v", what, err)
	case <-time.After(150 * time.Millisecond):
	}
	return c
}

// released fails the test when what blocked has reported does not end soon, and
// returns its error.
func (e *env) released(what string, c <-chan error) error {
	e.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(prompt):
		e.Fatalf("%s is still waiting after %v", what, prompt)
		return nil
	}
}

// interconnectError fails the test unless err is what SQL can show.
func (e *env) interconnectError(err error) {
	e.Helper()
	var me *motion.Error
	if !errors.As(err, &me) || me.Code != motion.CodeInterconnect || me.Message == "" {
		e.Errorf("error %v (%T) is no *motion.Error of %s", err, err, motion.CodeInterconnect)
	}
}

// tuple is the seq-th tuple from one node to another: size bytes, of which
// every one depends on all of them. Small ones carry less.
func tuple(dst []byte, from, to, seq, size int) []byte {
	var head [12]byte
	binary.LittleEndian.PutUint32(head[0:], uint32(from))
	binary.LittleEndian.PutUint32(head[4:], uint32(to))
	binary.LittleEndian.PutUint32(head[8:], uint32(seq))
	dst = append(dst[:0], head[:min(size, len(head))]...)
	x := uint32(from*31+to*17+seq)*2654435761 + 1
	for len(dst) < size {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		dst = append(dst, byte(x))
	}
	return dst
}

// sizeOf gives tuple lengths of all kinds, the same for both ends.
func sizeOf(from, to, seq int) int {
	r := rand.New(rand.NewPCG(uint64(from*1000+to), uint64(seq)))
	switch r.IntN(20) {
	case 0:
		return 0
	case 1:
		return r.IntN(20000)
	}
	return r.IntN(200)
}

// check says what is wrong with a tuple.
func check(got []byte, from, to, seq, size int) error {
	want := tuple(nil, from, to, seq, size)
	if !bytes.Equal(got, want) {
		return fmt.Errorf("tuple %d from %d to %d: %d bytes %.40x…, want %d bytes %.40x…", seq, from, to, len(got), got, len(want), want)
	}
	return nil
}

// sendAll sends n tuples to each of the receivers, in turn, and closes.
func (e *env) sendAll(s motion.Sender, from, to, n int) error {
	var buf []byte
	for seq := range n {
		for i := range to {
			buf = tuple(buf, from, i, seq, sizeOf(from, i, seq))
			if err := s.Send(e.ctx, i, buf); err != nil {
				return fmt.Errorf("sending tuple %d from %d to %d: %w", seq, from, i, err)
			}
		}
	}
	if err := s.Close(e.ctx); err != nil {
		return fmt.Errorf("closing the sender %d: %w", from, err)
	}
	return nil
}

// receiveAll receives what sendAll of each of from senders sent, and closes.
func (e *env) receiveAll(r motion.Receiver, from, to, n int) error {
	seen := make([]int, from)
	for {
		got, i, err := r.Receive(e.ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("receiving in %d: %w", to, err)
		}
		if err := check(got, i, to, seen[i], sizeOf(i, to, seen[i])); err != nil {
			return err
		}
		seen[i]++
	}
	for i, k := range seen {
		if k != n {
			return fmt.Errorf("%d of %d tuples from %d to %d", k, n, i, to)
		}
	}
	if err := r.Close(e.ctx); err != nil {
		return fmt.Errorf("closing the receiver %d: %w", to, err)
	}
	return nil
}

// fill sends until the sender has to wait, and returns how many bytes went in.
func (e *env) fill(s motion.Sender, to int) (bytes int) {
	e.Helper()
	buf := make([]byte, 4000)
	for bytes < 256<<20 {
		ctx, cancel := context.WithTimeout(e.ctx, 300*time.Millisecond)
		err := s.Send(ctx, to, buf)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return bytes
		}
		if err != nil {
			e.Fatalf("filling: %v", err)
		}
		bytes += len(buf)
	}
	e.Fatal("a sender never has to wait for a receiver that does not read: memory is not bounded")
	return 0
}
