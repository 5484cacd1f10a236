package proxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// BenchmarkPath is unix socket → proxy → TCP → proxy → unix socket, with one
// process in the place of four.
func BenchmarkPath(b *testing.B) {
	for _, streams := range []int{1, 8} {
		for _, size := range []int{512, 8192} {
			b.Run(fmt.Sprintf("streams=%d/size=%d", streams, size), func(b *testing.B) {
				nodes := startCluster(b, 2, nil)
				var from, to []*net.UnixConn
				for i := range streams {
					k := key(2, 1, int32(i), 1)
					to = append(to, nodes[0].hello(back(k)))
					from = append(from, nodes[1].hello(k))
				}
				packet := ictcp(1, size, 0)
				each := b.N/streams + 1
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for i := range streams {
					wg.Go(func() {
						for range each {
							if _, err := from[i].Write(packet); err != nil {
								b.Error(err)
								return
							}
						}
						from[i].CloseWrite()
					})
					wg.Go(func() {
						buf := make([]byte, 64<<10)
						n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to[i]}, buf)
						if n != int64(each*size) || err != nil {
							b.Errorf("%d bytes, %v", n, err)
						}
						to[i].Close()
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkSetup opens both ends of a connection, sends one packet and closes.
func BenchmarkSetup(b *testing.B) {
	nodes := startCluster(b, 2, nil)
	packet := ictcp(1, 100, 0)
	buf := make([]byte, 200)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		k := key(2, 1, int32(i%1000), uint32(i+1))
		r, s := nodes[0].hello(back(k)), nodes[1].hello(k)
		if _, err := s.Write(packet); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(r, buf[:len(packet)]); err != nil {
			b.Fatal(err)
		}
		s.CloseWrite()
		r.Read(buf)
		r.Close()
		s.Read(buf)
		s.Close()
	}
}

// BenchmarkPing is a lone packet there and one back.
func BenchmarkPing(b *testing.B) {
	nodes := startCluster(b, 2, nil)
	k := key(2, 1, 10, 1)
	r, s := nodes[0].hello(back(k)), nodes[1].hello(k)
	packet := ictcp(1, 8192, 0)
	buf := make([]byte, len(packet))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for _, c := range [2][2]*net.UnixConn{{s, r}, {r, s}} {
			if _, err := c[0].Write(packet); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c[1], buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}
