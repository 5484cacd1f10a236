package session

import (
	"errors"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// aheadLimit is how long the session waits for the message after an Execute, when
// it matters whether that is a Sync: drivers send the two together.
const aheadLimit = 5 * time.Millisecond

// receive returns the client's next message.
func (s *Session) receive() (pgproto3.FrontendMessage, error) {
	if m, err := s.ahead, s.aheadErr; m != nil || err != nil {
		s.ahead, s.aheadErr = nil, nil
		return m, err
	}
	return s.client.Backend.Receive()
}

// alone says whether the statement is a transaction of its own: nothing has been
// done in it yet, and nothing follows. Then the session may choose how isolated it
// is.
func (s *Session) alone() bool {
	return s.link.status == 'I' && !s.link.unsynced && !s.txn.implicit && !s.gang.InTransaction() && s.lastOfBatch()
}

// lastOfBatch says whether the batch of the extended protocol ends with what runs
// now. A client may wait for what is done before it sends on, so where the next
// message does not come at once it does not end.
func (s *Session) lastOfBatch() bool {
	if !s.inBatch {
		return true
	}
	if s.ahead == nil && s.aheadErr == nil {
		conn := s.client.Conn
		_ = conn.SetReadDeadline(time.Now().Add(aheadLimit))
		m, err := s.client.Backend.Receive()
		_ = conn.SetReadDeadline(time.Time{})
		if s.ctx.Err() != nil {
			_ = conn.SetReadDeadline(time.Unix(1, 0)) // as shutdown wants it
		}
		if s.ahead = m; !errors.Is(err, os.ErrDeadlineExceeded) {
			s.aheadErr = err
		}
	}
	_, ok := s.ahead.(*pgproto3.Sync)
	return ok
}
