package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// crowd are many connections that do nothing by themselves.
type crowd struct {
	streams []stream
	packet  []byte // all they ever carry
	written []int64
}

// openers is how many connections of a crowd are opened at once.
const openers = 4

// openCrowd opens n streams through p.
func openCrowd(ctx context.Context, p path, pat *pattern, n int, progress func(done int)) (*crowd, error) {
	c := &crowd{streams: make([]stream, n), written: make([]int64, n), packet: pat.source(0).next()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	next, failed := 0, error(nil)
	for range openers {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				if i >= n || failed != nil || ctx.Err() != nil {
					mu.Unlock()
					return
				}
				next++
				if i%1000 == 0 {
					progress(i)
				}
				mu.Unlock()
				s, err := p.open(i)
				mu.Lock()
				if err != nil {
					failed = fmt.Errorf("connection %d: %w", i+1, err)
				} else {
					c.streams[i] = s
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed, ctx.Err()); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *crowd) close() {
	for _, s := range c.streams {
		if s.from != nil {
			s.close()
		}
	}
}

// use carries a packet over each connection.
func (c *crowd) use() error {
	buf := make([]byte, len(c.packet))
	for i, s := range c.streams {
		_, err := s.from.Write(c.packet)
		if err == nil {
			_, err = io.ReadFull(s.to, buf)
		}
		if err == nil {
			err = c.compare(buf, 0)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	return nil
}

// compare checks bytes that begin at offset at of what was written.
func (c *crowd) compare(b []byte, at int64) error {
	for i := range b {
		if b[i] != c.packet[(at+int64(i))%int64(len(c.packet))] {
			return fmt.Errorf("data corrupted: byte %d is %#02x, sent was %#02x", at+int64(i), b[i], c.packet[(at+int64(i))%int64(len(c.packet))])
		}
	}
	return nil
}

// fill writes as much to each connection as it takes without waiting. It
// returns the bytes that went.
func (c *crowd) fill(ctx context.Context, enough func() bool) (sum int64, err error) {
	for i, s := range c.streams {
		if i%100 == 0 && (ctx.Err() != nil || enough()) {
			return sum, ctx.Err()
		}
		for {
			n, err := s.from.tryWrite(c.packet[c.written[i]%int64(len(c.packet)):])
			if err != nil {
				return sum, fmt.Errorf("connection %d: %w", i+1, err)
			}
			if n == 0 {
				break
			}
			c.written[i] += int64(n)
			sum += int64(n)
		}
	}
	return sum, nil
}

// drain reads connection i to its end, which must bring all that was written.
func (c *crowd) drain(i int) error {
	s := c.streams[i]
	if err := s.from.closeWrite(); err != nil {
		return err
	}
	buf := make([]byte, readSize)
	for at := int64(0); ; {
		n, err := s.to.Read(buf)
		if isEOF(err) {
			if at != c.written[i] {
				err = fmt.Errorf("%d of %d bytes have come", at, c.written[i])
			} else {
				err = nil
			}
		} else if err == nil {
			err = c.compare(buf[:n], at)
			at += int64(n)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		return nil
	}
}

// tryWrite writes what goes without waiting, which may be nothing.
func (k *sock) tryWrite(b []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(k.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, fmt.Errorf("send: %w", err)
		}
	}
}

// roomFor raises the limit of open files for n descriptors, and returns how
// many there may be.
func roomFor(n int) int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return n
	}
	if l.Cur < uint64(n) {
		more := unix.Rlimit{Cur: uint64(n), Max: max(l.Max, uint64(n))}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &more) == nil {
			l = more
		}
	}
	return int(min(l.Cur, 1<<30))
}
