package icbench

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// PlainTCP is the floor that a gather over the WAN is compared with: as many
// bytes over plain connections, one from each segment's host to the
// coordinator's at the same time, and nothing else.
const PlainTCP = "plain TCP"

// plainTCP sends so many bytes in all, or what comes within the limit.
func (s *site) plainTCP(ctx context.Context, size int64, limit time.Duration) (Figures, error) {
	segments := s.net.Hosts() - 1
	home := s.host(-1)
	ln, err := home.Listen(ctx, "tcp4", home.AddrPort(0))
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	before := s.net.Total()
	start := time.Now()
	end := start.Add(limit)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	// Whatever waits for the network then ends at once.
	var mu sync.Mutex
	var open []net.Conn
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, c)
		_ = c.SetDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		_ = ln.Close()
		for _, c := range open {
			_ = c.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()

	var got atomic.Int64
	var took time.Duration // until the last byte
	errs := make(chan error, 2*segments)
	for i := range segments {
		part := size / int64(segments)
		if i == 0 {
			part += size % int64(segments)
		}
		go func() { errs <- sendPlain(ctx, s, i, ln.Addr().String(), part, keep) }()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				errs <- err
				return
			}
			keep(c)
			buf := make([]byte, 256<<10)
			for err == nil {
				var n int
				n, err = c.Read(buf)
				got.Add(int64(n))
			}
			mu.Lock()
			took = max(took, time.Since(start))
			mu.Unlock()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			errs <- errors.Join(err, c.Close())
		}()
	}
	for range 2 * segments {
		e := <-errs
		if e != nil && !errors.Is(e, os.ErrDeadlineExceeded) && !errors.Is(e, context.DeadlineExceeded) && !(errors.Is(e, net.ErrClosed) && ctx.Err() != nil) {
			err = e
			cancel()
		}
	}
	if err != nil {
		return nil, err
	}
	f := Figures{Runs: 1}
	if got.Load() < size {
		took = limit
		f[Unfinished] = 1
		if got.Load() > 0 {
			f[Estimate] = benchreport.Milliseconds(took) * float64(size) / float64(got.Load())
		}
	} else {
		f[ElapsedP50] = benchreport.Milliseconds(took)
	}
	f[Rate] = float64(got.Load()) / 1e6 / took.Seconds()
	after := s.net.Total()
	f[NetKB], f[NetPackets] = float64(after.SentBytes-before.SentBytes)/1e3, float64(after.Sent-before.Sent)
	return f, nil
}

// sendPlain sends from a segment's host.
func sendPlain(ctx context.Context, s *site, segment int, to string, size int64, keep func(net.Conn)) error {
	c, err := s.host(segment).Dial(ctx, "tcp4", to)
	if err != nil {
		return err
	}
	keep(c)
	buf := make([]byte, 256<<10)
	for size > 0 && err == nil {
		var n int
		n, err = c.Write(buf[:min(size, int64(len(buf)))])
		size -= int64(n)
	}
	if err != nil {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // what is on its way is of no interest
		}
	}
	return errors.Join(err, c.Close())
}
