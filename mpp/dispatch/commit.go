package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// gidPrefix starts the name of every prepared transaction of the cluster.
const gidPrefix = "trunkline_"

// CommitDistributed commits the gang's transaction together with the
// coordinator's part; coord is nil when the coordinator has no transaction
// open. On error nothing has been committed, the segments are rolled back, and
// the coordinator's part is left to the caller to roll back, except when the
// error's SQLSTATE is 08007: then the outcome is not known yet; the
// coordinator's part decides, and the segments will follow it.
//
// Once the decision is made, nil is returned: a segment that does not answer
// is brought to commit by recovery, and OnNotice gets a WARNING.
func (g *Gang) CommitDistributed(ctx context.Context, coord CoordinatorTxn) error {
	if g.busy.Load() {
		return errBusy()
	}
	if g.tx.torn {
		g.rollback(ctx)
		return errTorn()
	}
	if m := g.failed(); m != nil {
		e := newError(codeInFailedTx, fmt.Sprintf("current transaction is aborted on seg%d and was rolled back", m.seg.Content), m.why)
		if m.why != nil {
			e.Detail = m.why.Error()
		}
		g.rollback(ctx)
		return e
	}
	var writers, readers []*member
	prepare := false
	for _, m := range g.members {
		switch {
		case m.begun && m.wrote:
			writers = append(writers, m)
			prepare = prepare || !m.noPrepare
		case m.begun:
			readers = append(readers, m)
		}
	}
	readers = append(readers, g.keeping()...)
	defer g.endTx()
	coordWrote := coord != nil && coord.Wrote()
	switch {
	case len(writers) == 0:
		return g.commitReaders(ctx, readers, coord)
	case len(writers) == 1 && !coordWrote:
		return g.commitOne(ctx, writers[0], readers, coord)
	case coord == nil:
		g.rollback(ctx)
		return newError("XX000", "a transaction that wrote on several segments needs the coordinator's transaction", nil)
	case g.tx.exported && prepare:
		g.rollback(ctx)
		return errExported()
	}
	return g.commitTwoPhase(ctx, writers, readers, coord, prepare)
}

// commitReaders commits where nothing was written, while the coordinator
// commits what it may have.
func (g *Gang) commitReaders(ctx context.Context, readers []*member, coord CoordinatorTxn) error {
	var err error
	parallel(len(readers)+1, func(i int) {
		if i < len(readers) {
			g.finishReader(ctx, readers[i])
		} else if coord != nil {
			err = coord.Commit(ctx)
		}
	})
	return err
}

// finishReader ends a part that wrote nothing; its outcome does not matter.
func (g *Gang) finishReader(ctx context.Context, m *member) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.d.p.CancelTimeout)
	defer cancel()
	if err := m.simple(ctx, "COMMIT", ""); err != nil {
		m.drop()
	}
}

// simple runs one statement and checks its command tag, when one is given. The
// end of ctx cuts the connection.
func (m *member) simple(ctx context.Context, sql, tag string) error {
	res, err := m.collect(m.conn.Exec(ctx, sql), "")
	if err == nil && tag != "" && res.Tag.String() != tag {
		return newError("40000", fmt.Sprintf("%s was answered by %s (%s)", tag, res.Tag, m.describe(0)), nil)
	}
	return err
}

// commitOne commits a transaction that wrote on one segment only.
func (g *Gang) commitOne(ctx context.Context, w *member, readers []*member, coord CoordinatorTxn) error {
	h, err := g.d.latch.acquire(ctx, committing, g.d.p.LatchLimit, nil)
	if err != nil {
		g.rollback(ctx)
		return canceled(ctx)
	}
	err = g.each(context.WithoutCancel(ctx), []*member{w}, func(_ int, m *member) error { return m.simple(context.Background(), "COMMIT", "COMMIT") })
	h.release()
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Lost {
			c := *e.PgError
			c.Code = codeOutcomeUnknown
			c.Hint = "The connection was lost while the segment committed: check whether the changes are there."
			err = &Error{PgError: &c, Seg: e.Seg, Lost: true, Err: err}
		}
		g.rollback(ctx)
		return err
	}
	if err := g.commitReaders(ctx, readers, coord); err != nil {
		g.warn(int(w.seg.Content), "the coordinator's read-only part of a committed transaction failed", err)
	}
	return nil
}

// commitTwoPhase is the protocol of the package comment.
func (g *Gang) commitTwoPhase(ctx context.Context, writers, readers []*member, coord CoordinatorTxn, prepare bool) error {
	xid, err := coord.Xid(ctx)
	if err != nil {
		g.rollback(ctx)
		return err
	}
	era, err := coord.Era(ctx)
	if err != nil {
		g.rollback(ctx)
		return err
	}
	gid := fmt.Sprintf("%s%s_%d_%s", gidPrefix, xid, g.cfg.SessionID, era)
	id, ok := parseGid(gid)
	if !ok {
		g.rollback(ctx)
		return newError("XX000", fmt.Sprintf("the coordinator's transaction has the impossible id %q of %q", xid, era), nil)
	}
	g.d.setLive(gid, true)
	defer g.d.setLive(gid, false)

	err = g.each(ctx, writers, func(_ int, m *member) error {
		switch {
		case m.noPrepare: // what is deferred is checked before the decision all the same
			return m.simple(context.Background(), "SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS")
		default:
			m.prepared = true // may be, from now on
			if err := m.simple(context.Background(), "PREPARE TRANSACTION '"+gid+"'", "PREPARE TRANSACTION"); err != nil {
				var e *Error
				m.prepared = errors.As(err, &e) && e.Lost
				return err
			}
		}
		return nil
	})
	if err != nil {
		g.abortPrepared(ctx, writers, gid)
		return err
	}

	// A waiting statement of another session is let in within the limits of
	// the latch, so this ends soon even though the end of ctx is not heeded.
	h, err := g.d.latch.acquire(ctx, committing, g.d.p.LatchLimit, nil)
	if err != nil {
		g.abortPrepared(ctx, writers, gid)
		return canceled(ctx)
	}
	defer h.release()
	if err := coord.Commit(ctx); err != nil {
		committed, known := g.outcome(ctx, id, err)
		switch {
		case !known:
			for _, m := range writers {
				if m.prepared {
					g.d.addDoubt(m.seg.Content, gid)
				}
			}
			for _, m := range writers {
				m.drop()
			}
			g.leave(ctx, readers)
			e := newError(codeOutcomeUnknown, "the coordinator's PostgreSQL was lost while it committed: the outcome of the transaction is not known yet", err)
			e.Detail = fmt.Sprintf("Prepared transactions %s will be resolved as soon as it answers.", gid)
			return e
		case !committed:
			g.abortPrepared(ctx, writers, gid)
			return err
		}
	}
	again := g.decided(ctx, writers, gid, h)
	defer again.release()
	g.commitPrepared(ctx, writers, readers, gid, again)
	return nil
}

// decided has the statements of other sessions wait for a transaction on its
// segments from now on, with none of them in the middle of taking its snapshots,
// and returns the hold on the latch. The coordinator may have taken its time, for
// its standby maybe, so that h does not stand any more; nothing of the transaction
// could be seen until now.
func (g *Gang) decided(ctx context.Context, writers []*member, gid string, h *hold) *hold {
	pending := func(is bool) {
		for _, m := range writers {
			g.d.setPending(m.seg.Content, gid, is)
		}
	}
	for {
		pending(true)
		if h.held() {
			return h
		}
		pending(false)
		// Without an end of ctx there is no error.
		h, _ = g.d.latch.acquire(context.WithoutCancel(ctx), committing, g.d.p.LatchLimit, nil)
	}
}

// outcome says what became of the coordinator's transaction after Commit
// returned err.
func (g *Gang) outcome(ctx context.Context, id coordXid, err error) (committed, known bool) {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.SeverityUnlocalized != "FATAL" && pe.Severity != "FATAL" && pe.Code != codeConnectionFailure {
		return false, true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.d.p.CommitRetry)
	defer cancel()
	for {
		status, err := g.d.xactStatus(ctx, []coordXid{id})
		if err == nil && status[id] != statusInProgress {
			return status[id] == statusCommitted, status[id] != ""
		}
		select {
		case <-ctx.Done():
			return false, false
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// commitPrepared makes the commit happen on the writers, on which it is noted as
// pending: a first try on all at once under the latch, then again and again on
// those that failed. The readers end now, too: they may have locked rows, and who gets
// these then must see what the transaction has written.
func (g *Gang) commitPrepared(ctx context.Context, writers, readers []*member, gid string, h *hold) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.d.p.CommitRetry)
	defer cancel()
	errs := make([]error, len(writers))
	parallel(len(writers)+len(readers), func(i int) {
		if i >= len(writers) {
			g.finishReader(ctx, readers[i-len(writers)])
			return
		}
		m := writers[i]
		defer g.d.setPending(m.seg.Content, gid, false)
		switch {
		case m.noPrepare:
			if err := m.simple(ctx, "COMMIT", "COMMIT"); err != nil {
				g.warn(int(m.seg.Content), "the part of the transaction that could not be prepared is lost", err)
			}
		default:
			if errs[i] = m.simple(ctx, "COMMIT PREPARED '"+gid+"'", "COMMIT PREPARED"); errs[i] != nil {
				// New connections must not see the segment before it is done.
				g.d.addDoubt(m.seg.Content, gid)
			}
		}
	})
	h.release()
	// Recovery may do it too: the decision is there to be asked for.
	g.d.setLive(gid, false)
	parallel(len(writers), func(i int) {
		if errs[i] == nil {
			return
		}
		m := writers[i]
		if err := g.press(ctx, m, "COMMIT PREPARED '"+gid+"'"); err != nil {
			g.warn(int(m.seg.Content), "the transaction is committed, but the segment does not answer; it will follow when it is back", err)
			g.d.wake()
			return
		}
		g.d.removeDoubt(m.seg.Content, gid)
	})
}

// press repeats a statement about a prepared transaction until it succeeds or
// the transaction is gone.
func (g *Gang) press(ctx context.Context, m *member, sql string) error {
	pause := 20 * time.Millisecond
	for {
		var err error
		if m.conn == nil || m.conn.IsClosed() {
			m.drop()
			err = m.connect(ctx, true)
		}
		if err == nil {
			verb, _, _ := strings.Cut(sql, " '")
			err = m.simple(ctx, sql, verb)
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Code == codeNoSuchObject {
				err = nil // an earlier try did it
			}
			// Without the session's settings it must not be used for more.
			m.drop()
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, 500*time.Millisecond)
	}
}

// abortPrepared rolls back a transaction that was not decided.
func (g *Gang) abortPrepared(ctx context.Context, writers []*member, gid string) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.d.p.CancelTimeout)
	defer cancel()
	parallel(len(writers), func(i int) {
		m := writers[i]
		if !m.prepared {
			return // rollback does it
		}
		err := errors.New("connection lost")
		if m.conn != nil {
			err = m.simple(short, "ROLLBACK PREPARED '"+gid+"'", "ROLLBACK PREPARED")
		}
		if err != nil {
			g.d.addDoubt(m.seg.Content, gid)
			m.drop()
			g.d.wake()
		}
	})
	g.rollback(ctx)
}

// warn tells the session, and the log, what it cannot do anything about.
func (g *Gang) warn(seg int, message string, err error) {
	g.d.log.Warn(message, "seg", seg, "session", g.cfg.SessionID, "err", err)
	if g.cfg.OnNotice != nil {
		g.cfg.OnNotice(seg, &pgconn.Notice{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "01000",
			Message: fmt.Sprintf("%s (seg%d)", message, seg), Detail: err.Error()})
	}
}
