package execute

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// readBuffer is the size of a connection's read buffer. PostgreSQL writes
	// 8 kB at a time; eight of them a read keep the system calls few without
	// making an idle QE heavy.
	readBuffer = 64 << 10
	// maxMessage is the longest message accepted, PostgreSQL's own limit
	// (1 GB) and a header.
	maxMessage = 1<<30 + 64
)

// reader cuts a byte stream into protocol messages without copying them.
type reader struct {
	r        io.Reader
	buf      []byte
	off, end int
}

func newReader(r io.Reader) *reader { return &reader{r: r, buf: make([]byte, readBuffer)} }

// buffered returns the bytes read but not consumed.
func (r *reader) buffered() []byte { return r.buf[r.off:r.end] }

// skip consumes n buffered bytes.
func (r *reader) skip(n int) { r.off += n }

// fill reads more bytes behind the buffered ones, at least one. The buffer
// grows only as the bytes of a long message really come.
func (r *reader) fill() error {
	switch {
	case r.off == r.end:
		r.off, r.end = 0, 0
		if len(r.buf) > 4*readBuffer {
			r.buf = make([]byte, readBuffer) // a huge message has passed
		}
	case r.off > 0 && r.end > len(r.buf)/2: // rather than read in small bits
		r.end = copy(r.buf, r.buf[r.off:r.end])
		r.off = 0
	case r.end == len(r.buf):
		b := make([]byte, 2*len(r.buf))
		r.end = copy(b, r.buf)
		r.buf = b
	}
	n, err := r.r.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// messageLen returns the length of the message b starts with, with its
// header; 0 when b is too short to tell.
func messageLen(b []byte) (int, error) {
	if len(b) < 5 {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > maxMessage {
		return 0, fmt.Errorf("message %q has an impossible length of %d bytes", b[0], n)
	}
	return int(n) + 1, nil
}

// next returns the next whole message with its header and consumes it. It is
// valid until the next call of next or fill.
func (r *reader) next() ([]byte, error) {
	for {
		n, err := messageLen(r.buf[r.off:r.end])
		if err != nil {
			return nil, err
		}
		if n > 0 && r.end-r.off >= n {
			m := r.buf[r.off : r.off+n]
			r.off += n
			return m, nil
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}
