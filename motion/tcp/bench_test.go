package tcp_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/tcp"
)

// two makes a sender's and a receiver's interconnect.
func two(b *testing.B) (from, to motion.Interconnect, fromPeer, toPeer motion.Peer) {
	b.Helper()
	var ics [2]motion.Interconnect
	for i := range ics {
		ic, err := tcp.New(tcp.Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ic.Close() })
		ics[i] = ic
	}
	return ics[0], ics[1], motion.Peer{Content: 0, Pid: 1}, motion.Peer{Content: 1, Pid: 2, Addr: ics[1].Addr()}
}

func BenchmarkGather(b *testing.B) {
	for _, size := range []int{20, 200, 2000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			from, to, fp, tp := two(b)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			run(b, id, from, to, fp, tp, size, b.N)
		})
	}
}

// BenchmarkShort is a whole motion of one row.
func BenchmarkShort(b *testing.B) {
	from, to, fp, tp := two(b)
	for i := range b.N {
		id := id
		id.Command = uint32(i)
		run(b, id, from, to, fp, tp, 3, 1)
	}
}

// run moves n rows of size bytes.
func run(b *testing.B, id motion.ID, from, to motion.Interconnect, fp, tp motion.Peer, size, n int) {
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
