package proxied_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/motiontest"
)

// BenchmarkGather moves rows from one instance to another through two proxies,
// all in this process.
func BenchmarkGather(b *testing.B) {
	for _, size := range []int{20, 200, 2000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			is := startProxies(b, 2)
			from, to := is.executor(b, 1, 1000, motiontest.Options{}), is.executor(b, 0, 1001, motiontest.Options{})
			s, err := from.Send(b.Context(), id, from.Peer, []motion.Peer{to.Peer})
			if err != nil {
				b.Fatal(err)
			}
			r, err := to.Receive(b.Context(), id, to.Peer, []motion.Peer{from.Peer})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			done := make(chan error, 1)
			go func() {
				row := make([]byte, size)
				for range b.N {
					if err := s.Send(b.Context(), 0, row); err != nil {
						done <- err
						return
					}
				}
				done <- s.Close(b.Context())
			}()
			n := 0
			for {
				if _, _, err = r.Receive(b.Context()); err != nil {
					break
				}
				n++
			}
			if err != io.EOF || n != b.N {
				b.Errorf("%d of %d rows, %v", n, b.N, err)
			}
			if err := r.Close(b.Context()); err != nil {
				b.Error(err)
			}
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkShort is a whole motion of one row through two proxies.
func BenchmarkShort(b *testing.B) {
	b.Run("Hello", func(b *testing.B) { benchmarkShort(b, false) })
	b.Run("Whole", func(b *testing.B) { benchmarkShort(b, true) })
}

func benchmarkShort(b *testing.B, whole bool) {
	is := startProxies(b, 2)
	is.whole = whole
	from, to := is.executor(b, 1, 1000, motiontest.Options{}), is.executor(b, 0, 1001, motiontest.Options{})
	for i := range b.N {
		id := id
		id.Command = uint32(i)
		r, err := to.Receive(b.Context(), id, to.Peer, []motion.Peer{from.Peer})
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			s, err := from.Send(b.Context(), id, from.Peer, []motion.Peer{to.Peer})
			if err == nil {
				err = s.Send(b.Context(), 0, []byte("row"))
			}
			if err == nil {
				err = s.Close(b.Context())
			}
			done <- err
		}()
		for err == nil {
			_, _, err = r.Receive(b.Context())
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
