package session

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// messageReader reads from the link so that one can look whether a message is
// there: Read never goes beyond the end of a message, so that what reads from
// it has not buffered the next one.
type messageReader struct {
	buf  *bufio.Reader
	left int // bytes of the current message that were not read yet
}

func newMessageReader(r io.Reader) *messageReader {
	return &messageReader{buf: bufio.NewReaderSize(r, 32<<10)}
}

// Read implements io.Reader.
func (r *messageReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		n, err := r.next()
		if err != nil {
			return 0, err
		}
		r.left = n
	}
	n, err := r.buf.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// next waits for the header of the next message and returns its whole length.
func (r *messageReader) next() (int, error) {
	head, err := r.buf.Peek(5)
	if err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n < 4 {
		return 0, errors.New("invalid message length")
	}
	return n + 1, nil
}

// wait waits until the whole next message is there. It can be interrupted by a
// deadline without loss.
func (r *messageReader) wait() error {
	n, err := r.next()
	if err == nil && n <= r.buf.Size() {
		_, err = r.buf.Peek(n)
	}
	return err
}

// receiveIdle waits for the client's next message. Meanwhile it passes on what
// the link says unasked: notifications, parameter changes, and why it hangs up.
func (s *Session) receiveIdle() (pgproto3.FrontendMessage, error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watchLink()
	}()
	m, err := s.receive()
	_ = s.link.conn.SetReadDeadline(time.Unix(1, 0))
	<-done
	_ = s.link.conn.SetReadDeadline(time.Time{})
	return m, err
}

// watchLink handles the link's messages until its read deadline.
func (s *Session) watchLink() {
	l := s.link
	for l.broken == nil {
		err := l.reader.wait()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			l.fail(err)
		} else {
			_, _ = l.receiveOne()
			s.out.flush()
		}
	}
	sendFatal(s.client, l.broken)
	s.client.Conn.Close()
}
