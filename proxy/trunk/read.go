package trunk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/iov"
	"github.com/trunkline-db/trunkline/proxy/internal/poll"
)

// parser cuts a stream into packets and parts of packets.
type parser struct {
	t *Trunk
	h Handler

	cur  icwire.Header // the DATA packet that is under way
	left int           // bytes of it still to come
}

// take hands over all that b has and returns how many bytes of it have to come
// again with what follows: the beginning of a header, or of a control packet.
func (p *parser) take(b []byte) (rest int, err error) {
	t := p.t
	for len(b) > 0 {
		if p.left > 0 {
			n := min(p.left, len(b))
			p.left -= n
			if err := p.h.Packet(p.cur, b[:n], p.left == 0); err != nil {
				return 0, err
			}
			b = b[n:]
			continue
		}
		h, payload, n, err := icwire.Next(b, t.dialect, t.maxPacket)
		switch {
		case errors.Is(err, icwire.ErrShort) && n == 0:
			return len(b), nil
		case err != nil && !errors.Is(err, icwire.ErrShort):
			return 0, err
		case h.Type != icwire.Data && n > t.dialect.HeaderLen()+MaxControl:
			return 0, &icwire.ProtocolError{Reason: fmt.Sprintf("%v with a payload of %d bytes", h.Type, n-t.dialect.HeaderLen())}
		case h.Type == icwire.Data && err != nil:
			t.count(n)
			p.cur, p.left = h, n-t.dialect.HeaderLen()
			b = b[t.dialect.HeaderLen():]
			continue
		case err != nil:
			return len(b), nil
		}
		t.count(n)
		if !t.health(h, payload) {
			if err := p.h.Packet(h, payload, true); err != nil {
				return 0, err
			}
		}
		b = b[n:]
	}
	return 0, nil
}

// read hands everything that arrives to h, until the connection ends.
func (t *Trunk) read(h Handler) error {
	buf := make([]byte, readSize)
	have, n := 0, 0
	var failed error
	waited := false
	var busy poll.Busy
	try := func(fd uintptr) bool {
		n, failed = iov.Read(int(fd), buf[have:])
		if failed == unix.EAGAIN {
			waited = true
			return false
		}
		return true
	}
	p := parser{t: t, h: h}
	for {
		n, waited = 0, false
		err := t.raw.Read(try)
		if waited {
			busy.Waited()
		} else {
			busy.Still(time.Now())
		}
		switch {
		case err != nil:
		case failed != nil:
			err = os.NewSyscallError("read", failed)
		case n == 0:
			err = io.EOF
		}
		if n > 0 {
			t.heard()
			have += n
			rest, perr := p.take(buf[:have])
			h.Batch()
			if perr != nil {
				return perr
			}
			have = copy(buf, buf[have-rest:have])
			t.Flush()
		}
		if err != nil {
			if err == io.EOF && (have > 0 || p.left > 0) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// loop hands a batch to the handler of this same proxy.
func (t *Trunk) loop(h Handler, o *output) error {
	p := parser{t: t, h: h}
	defer h.Batch()
	if _, err := p.take(o.control); err != nil {
		return err
	}
	for _, b := range o.batch {
		if _, err := p.take(b.B); err != nil {
			return err
		}
	}
	return nil
}

func (t *Trunk) count(n int) {
	t.packets[0].Add(1)
	t.bytes[0].Add(uint64(n))
}
