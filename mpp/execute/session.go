package execute

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/motion"
)

// errCanceled is why a slice ends when the dispatcher asks for it.
var errCanceled = &motion.Error{Code: "57014", Message: "canceling statement due to user request"}

// session is one QE. The feeder goroutine owns the reading side of client and,
// but for the pump's slice commands, the writing side of pg; the pump owns
// the reading side of pg and the writing side of client. They meet in job: the
// feeder sets it before it writes a slice command's messages to PostgreSQL,
// the pump clears it before it sends the client the last of the answer.
type session struct {
	srv       *Server
	client    net.Conn
	pg        net.Conn
	in        *reader // of pg
	pgKey     pgproto3.CancelRequest
	sessionID int32
	pid       int32
	ic        motion.Interconnect
	icErr     error
	own       *map[string]string // the instance's parameters that ic was given

	ctx      context.Context // ends with the dispatch connection
	outMu    sync.Mutex      // client writes
	txStatus atomic.Uint32   // of the last ReadyForQuery: I, T or E
	busy     atomic.Bool     // something was sent that PostgreSQL has not answered
	job      atomic.Pointer[job]

	warnings sync.WaitGroup // being sent

	stmt          atomic.Pointer[statement] // of the open slices, when they have motions
	rowsConnected bool                      // PostgreSQL to the row source; the pump's and the feeder's in turn
	parsed        parsed                    // likewise
	commands      parser                    // the feeder's

	mu   sync.Mutex
	open map[int16]*portal // open slices
}

// portal is one open slice.
type portal struct {
	name     string
	copy     bool
	out      bool // its motion is the statement's
	readOnly bool
	writes   bool   // see Slice.Writes
	data     string // token of what it copies
	count    bool   // see Slice.Count
	pass     *pass  // nil: it reads as the user
}

// run serves the session until either connection ends.
func (q *session) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	q.ctx = ctx
	key := sessionKey(q.pgKey.ProcessID, q.pgKey.SecretKey)
	q.srv.register(key, q)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := q.pump()
		q.srv.log.Debug("executor lost its PostgreSQL", "session", q.sessionID, "pid", q.pid, "err", err)
		cancel()
		q.client.Close() // ends the feeder
	})
	err := q.feed()
	q.srv.log.Debug("executor ends", "session", q.sessionID, "pid", q.pid, "err", err)
	q.srv.unregister(key)
	cancel() // ends the motion
	q.cancelJob(context.Canceled)
	if q.busy.Load() || q.job.Load() != nil {
		// PostgreSQL looks at its connection only when it writes. The request
		// must not be lost with ctx, which has just ended.
		q.cancelPG(context.WithoutCancel(ctx))
	}
	q.pg.Close() // ends the pump
	wg.Wait()
	_ = q.endStatement(context.Canceled)
	if j := q.job.Load(); j != nil && j.run != nil {
		j.run.pass.revoke()
	}
	q.closeInterconnect()
}

// feed reads the dispatch connection until it ends.
func (q *session) feed() error {
	r := newReader(q.client)
	pass := 0 // bytes of a message under way that go to PostgreSQL
	for {
		b := r.buffered()
		n := 0 // how much of b goes to PostgreSQL now
		var command []byte
	scan:
		for n < len(b) {
			if pass > 0 {
				k := min(pass, len(b)-n)
				n, pass = n+k, pass-k
				continue
			}
			size, err := messageLen(b[n:])
			if err != nil {
				return q.protocolViolation(err)
			}
			switch {
			case size == 0:
				break scan
			case b[n] == 'Q' && size > 5 && len(b)-n < 6:
				break scan
			case b[n] == 'Q' && size > 5+len(Marker) && b[n+5] == Marker[0]:
				if len(b)-n >= size {
					command = b[n : n+size]
				}
				break scan
			}
			pass = size
		}
		if n > 0 {
			if q.job.Load() != nil {
				if b[0] == 'X' {
					return io.EOF
				}
				return q.protocolViolation(errors.New("message before the answer to a slice command"))
			}
			q.busy.Store(true)
			q.parsed = parsed{} // whatever this does
			if _, err := q.pg.Write(b[:n]); err != nil {
				return err
			}
			r.skip(n)
		}
		if command != nil {
			if err := q.slice(command); err != nil {
				return err
			}
			r.skip(len(command))
			continue
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// slice handles the Query message m, which starts with Marker's first byte.
func (q *session) slice(m []byte) error {
	if q.job.Load() != nil {
		return q.protocolViolation(errors.New("slice command before the answer to the last one"))
	}
	text := bytes.TrimSuffix(m[5:], []byte{0})
	if params, ok := bytes.CutPrefix(text, []byte(TuneMarker)); ok {
		return q.reply(q.tune(params))
	}
	if !bytes.HasPrefix(text, []byte(Marker)) {
		return q.protocolViolation(errors.New("not a slice command"))
	}
	c, err := q.commands.parse(text[len(Marker):])
	if err != nil {
		return q.reply(q.appendFailure(nil, &motion.Error{Code: "08P01", Message: err.Error()}))
	}
	j, err := q.newJob(c)
	if err != nil {
		return q.reply(q.appendFailure(nil, err))
	}
	out := j.request()
	q.job.Store(j)
	_, err = q.pg.Write(out)
	return err
}

// reply writes whole messages to the client.
func (q *session) reply(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	q.outMu.Lock()
	defer q.outMu.Unlock()
	_, err := q.client.Write(b)
	return err
}

// appendFailure appends err and ReadyForQuery.
func (q *session) appendFailure(b []byte, err error) []byte {
	return q.appendReady(appendMessage(b, errorResponse(err)))
}

func (q *session) appendReady(b []byte) []byte {
	return appendMessage(b, &pgproto3.ReadyForQuery{TxStatus: byte(q.txStatus.Load())})
}

// errorResponse is err as PostgreSQL would send it.
func errorResponse(err error) *pgproto3.ErrorResponse {
	e := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: motion.CodeInterconnect, Message: err.Error()}
	var me *motion.Error
	if errors.As(err, &me) {
		e.Code, e.Message, e.Detail, e.Hint = me.Code, me.Message, me.Detail, me.Hint
		if e.Code == "" {
			e.Code = motion.CodeInterconnect
		}
	}
	return e
}

// protocolViolation tells the client and returns the error that ends the
// session.
func (q *session) protocolViolation(err error) error {
	e := &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: "invalid dispatch message", Detail: err.Error()}
	_ = q.reply(appendMessage(nil, e))
	return fmt.Errorf("dispatch protocol: %w", err)
}

// cancelJob ends the motion of the slice under way, if any.
func (q *session) cancelJob(cause error) {
	if st := q.stmt.Load(); st != nil {
		st.cancel(cause)
	}
	if j := q.job.Load(); j != nil {
		j.cancel(cause)
	}
}
