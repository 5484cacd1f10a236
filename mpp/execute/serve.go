package execute

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/motion"
)

// stopGrace is how long the rest of a stopped slice's rows is read and thrown
// away before its statement is cancelled: most end by themselves sooner.
const stopGrace = 5 * time.Millisecond

// opened is what a client sees when the slices are open: the head of a result
// of one column, and its one row.
var opened = appendMessage(appendMessage(nil,
	&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("opened"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}}}),
	&pgproto3.DataRow{Values: [][]byte{[]byte("opened")}})

// failure is a job's outcome that is not a lost connection: raw is
// PostgreSQL's own ErrorResponse, else err tells.
type failure struct {
	raw []byte
	err error
}

func (f *failure) Error() string {
	if f.err != nil {
		return f.err.Error()
	}
	return "error of PostgreSQL"
}

// serve runs the job to its end in the pump. An error means that a connection
// is lost.
func (j *job) serve() error {
	defer j.cancel(nil)
	q := j.q
	tag, err := j.work()
	if j.run != nil {
		j.run.pass.revoke()
	}
	var f *failure
	if err != nil && !errors.As(err, &f) {
		return err
	}
	if st := q.stmt.Load(); st != nil && err == nil && j.run != nil {
		st.left--
	}
	if f != nil || j.oneShot || j.cmd.Op == OpClose {
		if err := j.sync(); err != nil {
			return err
		}
		q.mu.Lock()
		q.open = nil
		q.mu.Unlock()
		var why error
		if f != nil {
			why = f
			q.parsed = parsed{}
		}
		if st := q.stmt.Load(); st != nil && st.left > 0 {
			// It has failed here or elsewhere: whatever PostgreSQL has made of
			// its connection to the row source, the next one needs a good one.
			q.rowsConnected = false
		}
		if err := q.endStatement(why); err != nil && (f == nil || consequence(f.err)) {
			f = &failure{err: err}
		}
		q.statementEnds(j.cmd.Command)
	}
	q.busy.Store(false)
	q.job.Store(nil) // before the client may send its next command
	switch {
	case f != nil && f.raw != nil:
		return q.reply(q.appendReady(f.raw))
	case f != nil:
		return q.reply(q.appendFailure(nil, f.err))
	}
	return q.reply(q.appendReady(appendMessage(append([]byte(nil), j.head...), &pgproto3.CommandComplete{CommandTag: []byte(tag)})))
}

// sync brings PostgreSQL to where it waits for a new query, dropping what it
// says until then. Slices do not stay open: after a cancellation that came too
// late to fail the transaction their portals would be there until its end.
func (j *job) sync() error {
	if j.syncs == 0 {
		if _, err := j.q.pg.Write(j.appendClose(nil)); err != nil {
			return err
		}
	}
	for j.syncs > 0 {
		if _, _, err := j.next(); err != nil {
			return err
		}
	}
	return nil
}

// next returns the type and body of the next message that is not
// asynchronous; asynchronous ones are relayed.
func (j *job) next() (byte, []byte, error) {
	for {
		m, err := j.q.in.next()
		if err != nil {
			return 0, nil, err
		}
		switch m[0] {
		case 'N', 'S', 'A':
			if err := j.q.reply(m); err != nil {
				return 0, nil, err
			}
			continue
		case 'E':
			// Also when it is only what an early stop has brought about: dblink
			// may have been left busy.
			j.q.rowsConnected = false
		case 'Z':
			j.syncs--
			j.q.txStatus.Store(uint32(m[5]))
		}
		return m[0], m[5:], nil
	}
}

// pgFailure keeps an ErrorResponse for the client. FATAL ones are relayed at
// once, since the connection ends with them.
func (j *job) pgFailure(body []byte) error {
	raw := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4))
	raw = append(raw, body...)
	if st := j.q.stmt.Load(); st != nil {
		if err := st.failed(); err != nil && follows(errorField(body, 'C'), err) {
			return &failure{err: err}
		}
	}
	if sev := errorField(body, 'V'); sev == "FATAL" || sev == "PANIC" {
		_ = j.q.reply(raw)
		return errors.New("PostgreSQL ended the connection")
	}
	return &failure{raw: raw}
}

// follows says whether an error of PostgreSQL's with that code is what the
// failure of a motion has brought about: a cancellation, or what the row source
// has said.
func follows(code string, err error) bool {
	return code == "57014" || code == errorResponse(err).Code
}

// errorField returns one field of an ErrorResponse's body, "" when absent.
func errorField(body []byte, code byte) string {
	for len(body) > 1 {
		value, rest, ok := bytes.Cut(body[1:], []byte{0})
		if !ok {
			break
		}
		if body[0] == code {
			return string(value)
		}
		body = rest
	}
	return ""
}

// work does the job and returns its command tag.
func (j *job) work() (string, error) {
	switch j.cmd.Op {
	case OpClose:
		return "CLOSE", j.await('Z')
	case OpRun:
		if err := j.await('3'); err != nil { // wakePortal
			return "", err
		}
		return j.rows()
	}
	for i := range j.binds {
		if err := j.await('2'); err != nil {
			return "", err
		}
		after := len(j.cmd.Slices) // the connection to the row source
		if j.cmd.Idle {
			after++
		}
		if j.connects && i == j.binds-after-1 {
			if err := j.await('C'); err != nil {
				return "", err
			}
			j.q.rowsConnected = true
		}
	}
	if j.cmd.Idle {
		if err := j.await('C'); err != nil {
			return "", err
		}
	}
	if j.run != nil && j.run.copy {
		// The snapshot of COPY is taken in Execute, whose first message this is.
		if err := j.await('H'); err != nil {
			return "", err
		}
	}
	if st := j.q.stmt.Load(); st != nil {
		if err := st.listening(j.ctx); err != nil {
			return "", j.abandon(err)
		}
	}
	if j.run == nil {
		j.head = opened
		return "OPEN", nil
	}
	if !j.cmd.Short {
		if err := j.q.reply(opened); err != nil {
			return "", err
		}
	}
	return j.rows()
}

// await reads up to a message of that type.
func (j *job) await(typ byte) error {
	for {
		t, body, err := j.next()
		if err != nil {
			return err
		}
		switch t {
		case typ:
			return nil
		case 'E':
			return j.pgFailure(body)
		}
	}
}

// rows moves the rows of the running slice into its motion.
func (j *job) rows() (string, error) {
	if st := j.q.stmt.Load(); st != nil {
		st.begin(j.cmd.Run.Slice)
	}
	if j.run.writes {
		return j.write()
	}
	if j.run.out {
		return j.q.stmt.Load().send(j)
	}
	q, r := j.q, j.cmd.Run
	sender, err := q.ic.Send(j.ctx, q.motionID(j.cmd.Command, r), q.self(), r.Receivers)
	if err != nil {
		return "", j.abandon(err)
	}
	tag, err := j.copyRows(sender, r)
	if err != nil {
		sender.Abort()
		return "", err
	}
	if err := sender.Close(j.ctx); err != nil && !errors.Is(err, motion.ErrStopped) {
		return "", &failure{err: j.cause(err)}
	}
	return tag, nil
}

// write runs a slice that has no rows, and returns its command tag.
func (j *job) write() (string, error) {
	if j.run.data != "" {
		if err := j.await('G'); err != nil {
			return "", err
		}
		if err := j.copyIn(); err != nil {
			return "", err
		}
	}
	for {
		t, body, err := j.next()
		if err != nil {
			return "", err
		}
		switch t {
		case 'C':
			return strings.TrimSuffix(string(body), "\x00"), nil
		case 'E':
			return "", j.pgFailure(body)
		}
	}
}

// copyBuffer is how much of COPY's data is written at a time.
const copyBuffer = 64 << 10

// copyIn gives PostgreSQL the rows of the slice's input. A DataRow's body is a
// tuple of the binary format. Should PostgreSQL refuse one, it drops the rest and
// says why at the end.
func (j *job) copyIn() error {
	st := j.q.stmt.Load()
	at := slices.IndexFunc(st.inputs, func(in *incoming) bool { return in.Token == j.run.data })
	buf := make([]byte, 0, copyBuffer)
	write := func(data []byte) error {
		if len(buf) > 0 && len(buf)+len(data) > copyBuffer {
			if _, err := j.q.pg.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		buf = appendFrontend(buf, &pgproto3.CopyData{Data: data})
		return nil
	}
	err := write([]byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	if err == nil {
		err = st.inputs[at].queue.Read(j.ctx, write)
	}
	if err == nil {
		err = write([]byte{0xff, 0xff})
	}
	if err != nil {
		// Waiting for data it would not heed a cancellation.
		f := &failure{err: j.cause(err)}
		if _, err := j.q.pg.Write(appendFrontend(nil, &pgproto3.CopyFail{Message: "the rows have not come"})); err != nil {
			return err
		}
		return f
	}
	buf = appendFrontend(appendFrontend(buf, &pgproto3.CopyDone{}), &pgproto3.Flush{})
	_, err = j.q.pg.Write(buf)
	return err
}

// abandon stops PostgreSQL after the motion has failed.
func (j *job) abandon(err error) error {
	f := &failure{err: j.cause(err)} // before the dispatcher, whose end fails too, cancels the job
	j.q.cancelPG(j.q.ctx)
	return f
}

// cause prefers why the job was cancelled to what that made fail, but not to
// what the interconnect has found out by itself, and the failure of a motion to
// the cancellation it has led to: where that was seen first, on another
// segment, it most often looks like a mere consequence.
func (j *job) cause(err error) error {
	var e *motion.Error
	if errors.As(err, &e) && e.Code == motion.CodeInterconnect && !motion.Bare(e.Message) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	if st := j.q.stmt.Load(); st != nil {
		if err := st.failed(); err != nil {
			return err
		}
	}
	if c := context.Cause(j.ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	return err
}

// copyRows hands every row to the sender, as long as it wants any, and returns
// the command tag.
func (j *job) copyRows(sender motion.Sender, r *Run) (tag string, err error) {
	tag, rows, err := j.handRows(sender, r)
	if m, ok := sender.(motion.Meter); ok && err == nil && j.run.count {
		bytes, packets := m.Filled()
		return fmt.Sprintf("SELECT %d %d %d", bytes, packets, rows), nil
	}
	return tag, err
}

func (j *job) handRows(sender motion.Sender, r *Run) (tag string, rows int64, err error) {
	stopped := false
	var stop stopper
	defer stop.wait() // a late cancel must not hit the next statement
	to, err := newPlacer(r)
	if err != nil {
		return "", rows, j.abandon(err)
	}
	for {
		t, body, err := j.next()
		if err != nil {
			return "", rows, err
		}
		j.run.pass.revoke() // it is read before there is a row
		switch t {
		case 'D', 'd':
			if stopped {
				continue
			}
			if err = to.send(j.ctx, sender, body); err == nil {
				rows++
				continue
			}
			if !errors.Is(err, motion.ErrStopped) {
				return "", rows, j.abandon(err)
			}
			stopped = true
			if !j.portions() && j.run.readOnly {
				stop.after(stopGrace, func() { j.q.cancelPG(j.q.ctx) })
			}
		case 's':
			b := []byte(nil)
			if stopped {
				b = appendFrontend(b, &pgproto3.Close{ObjectType: 'P', Name: j.run.name})
				if j.oneShot {
					b = j.appendSync(b)
				} else {
					b = appendFrontend(b, &pgproto3.Flush{})
				}
				if _, err := j.q.pg.Write(b); err != nil {
					return "", rows, err
				}
				return fmt.Sprintf("SELECT %d", rows), rows, j.await('3')
			}
			if _, err := j.q.pg.Write(j.appendExecute(b)); err != nil {
				return "", rows, err
			}
		case 'C':
			tag = strings.TrimSuffix(string(body), "\x00")
			if strings.HasPrefix(tag, "SELECT") {
				tag = fmt.Sprintf("SELECT %d", rows) // over all portions
			}
			return tag, rows, nil
		case 'E':
			if stopped && j.ctx.Err() == nil && errorField(body, 'C') == "57014" {
				return fmt.Sprintf("SELECT %d", rows), rows, nil
			}
			return "", rows, j.pgFailure(body)
		case 'I':
			return "", rows, nil
		}
	}
}

// stopper runs a function after a while, unless it is waited for first.
type stopper struct {
	timer *time.Timer
	wg    sync.WaitGroup
}

func (s *stopper) after(d time.Duration, f func()) {
	s.wg.Add(1)
	s.timer = time.AfterFunc(d, func() {
		defer s.wg.Done()
		f()
	})
}

// wait returns when f has run or cannot run any more.
func (s *stopper) wait() {
	if s.timer != nil && s.timer.Stop() {
		s.wg.Done()
	}
	s.wg.Wait()
}
