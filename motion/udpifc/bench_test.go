package udpifc

import (
	"fmt"
	"io"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// BenchmarkGather moves rows from one executor to another over loopback, with
// Greenplum's defaults and with long queues.
func BenchmarkGather(b *testing.B) {
	for name, p := range map[string]link.Params{"default": {}, "long": {QueueDepth: 64, SndQueueDepth: 64}} {
		for _, size := range []int{20, 200, 2000} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				from, to, fp, tp := two(b, p)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, mid(1), from, to, fp, tp, size, b.N)
			})
		}
	}
}

// BenchmarkShort is a whole motion of one row.
func BenchmarkShort(b *testing.B) {
	from, to, fp, tp := two(b, link.Params{})
	for i := range b.N {
		run(b, mid(uint32(i)), from, to, fp, tp, 3, 1)
	}
}

// two makes a sender's and a receiver's interconnect.
func two(b *testing.B, p link.Params) (from, to *Interconnect, fromPeer, toPeer motion.Peer) {
	b.Helper()
	var ics [2]*Interconnect
	for i := range ics {
		ic, err := New(Config{Tuning: Tuning{Params: p}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ic.Close() })
		ics[i] = ic
	}
	return ics[0], ics[1], motion.Peer{Content: 0, Pid: 1}, motion.Peer{Content: 1, Pid: 2, Addr: ics[1].Addr()}
}

// run moves n rows of size bytes.
func run(b *testing.B, id motion.ID, from, to *Interconnect, fp, tp motion.Peer, size, n int) {
	r, err := to.Receive(b.Context(), id, tp, []motion.Peer{fp})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		s, err := from.Send(b.Context(), id, fp, []motion.Peer{tp})
		row := make([]byte, size)
		for i := 0; i < n && err == nil; i++ {
			err = s.Send(b.Context(), 0, row)
		}
		if err == nil {
			err = s.Close(b.Context())
		}
		done <- err
	}()
	got := 0
	for {
		if _, _, err = r.Receive(b.Context()); err != nil {
			break
		}
		got++
	}
	if err != io.EOF || got != n {
		b.Fatalf("%d of %d rows, %v", got, n, err)
	}
	if err := r.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
