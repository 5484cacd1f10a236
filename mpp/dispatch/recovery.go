package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What pg_xact_status says.
const (
	statusCommitted  = "committed"
	statusAborted    = "aborted"
	statusInProgress = "in progress"
)

// fullPassEvery is how many rounds of Recover pass between two that look at
// every segment, whether something is known to be in doubt there or not.
const fullPassEvery = 30

// segState is what the dispatcher knows of one segment's prepared
// transactions.
type segState struct {
	looked bool // its list was read once and everything decided resolved
	// pending are gids that a session commits there just now. No statement may
	// take its snapshot then; a new connection need not wait.
	pending map[string]bool
	doubts  map[string]bool // gids to resolve; true: new connections wait for it
	turn    chan struct{}   // held by who resolves them
}

// stateOf returns the state of a segment. d.mu is held.
func (d *Dispatcher) stateOf(content int16) *segState {
	s := d.state[content]
	if s == nil {
		s = &segState{doubts: make(map[string]bool), pending: make(map[string]bool), turn: make(chan struct{}, 1)}
		d.state[content] = s
	}
	return s
}

func (d *Dispatcher) addDoubt(content int16, gid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stateOf(content).doubts[gid] = true
}

func (d *Dispatcher) removeDoubt(content int16, gid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.stateOf(content).doubts, gid)
}

// setPending notes on which segments a decided commit has begun, or that it is
// done.
func (d *Dispatcher) setPending(content int16, gid string, pending bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if pending {
		d.stateOf(content).pending[gid] = true
	} else {
		delete(d.stateOf(content).pending, gid)
	}
}

// settled says whether a snapshot taken on the segment now has the whole of every
// commit that others have seen.
func (d *Dispatcher) settled(content int16) bool {
	usable, _ := d.clean(content)
	d.mu.Lock()
	defer d.mu.Unlock()
	return usable && len(d.stateOf(content).pending) == 0
}

func (d *Dispatcher) setLive(gid string, live bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if live {
		d.live[gid] = true
	} else {
		delete(d.live, gid)
	}
}

func (d *Dispatcher) isLive(gid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live[gid]
}

// clean says whether new connections may use the segment at once, and whether
// nothing at all is left to resolve there.
func (d *Dispatcher) clean(content int16) (usable, idle bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stateOf(content)
	usable = s.looked
	for _, blocks := range s.doubts {
		usable = usable && !blocks
	}
	return usable, s.looked && len(s.doubts) == 0
}

// wake makes Recover look now.
func (d *Dispatcher) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// waitRecovered returns when every decided transaction is finished on the
// segment, so that a statement cannot see half of one.
func (d *Dispatcher) waitRecovered(ctx context.Context, seg Segment) error {
	return d.waitUntil(ctx, seg, func() bool { ok, _ := d.clean(seg.Content); return ok })
}

// waitUntil resolves what is in doubt on a segment until ok.
func (d *Dispatcher) waitUntil(ctx context.Context, seg Segment, ok func() bool) error {
	if ok() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.p.ConnectTimeout)
	defer cancel()
	for {
		var err error
		if usable, _ := d.clean(seg.Content); !usable {
			err = d.recoverSegment(ctx, seg)
		}
		if ok() {
			return nil
		}
		select {
		case <-ctx.Done():
			e := newError(codeCannotConnectNow, fmt.Sprintf("seg%d %s has distributed transactions in doubt that could not be resolved yet", seg.Content, seg.Address), err)
			if err != nil {
				e.Detail = err.Error()
			}
			e.Hint = "Try again in a few seconds."
			e.Seg = int(seg.Content)
			return e
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Recover resolves what is in doubt until ctx ends: all segments at the start
// and now and then, those with something known to be in doubt every
// Params.RecoverEvery and when a commit leaves something behind. It also breaks
// deadlocks over several segments. It returns nil.
func (d *Dispatcher) Recover(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.deadlocks(ctx) })
	defer d.closeLockWaits(0)
	tick := time.NewTicker(d.p.RecoverEvery)
	defer tick.Stop()
	for round := 0; ; round++ {
		for _, seg := range d.cfg.Segments() {
			if _, idle := d.clean(seg.Content); idle && round%fullPassEvery != 0 {
				continue
			}
			if err := d.recoverBounded(ctx, seg); err != nil && ctx.Err() == nil {
				d.log.Warn("distributed transactions stay in doubt", "seg", seg.Content, "err", err)
			}
		}
		if round%fullPassEvery == 0 {
			// Also where nothing is in doubt: a checkpoint could come first.
			if _, err := d.xactStatus(ctx, nil); err != nil && ctx.Err() == nil {
				d.log.Warn("the coordinator's PostgreSQL does not say which transactions it remembers", "err", err)
			}
		}
		d.closeLockWaits(lockWaitsIdle)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.kick:
		}
	}
}

// RecoverNow looks at every segment once.
func (d *Dispatcher) RecoverNow(ctx context.Context) error {
	var errs []error
	for _, seg := range d.cfg.Segments() {
		if err := d.recoverBounded(ctx, seg); err != nil {
			errs = append(errs, fmt.Errorf("seg%d: %w", seg.Content, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Dispatcher) recoverBounded(ctx context.Context, seg Segment) error {
	ctx, cancel := context.WithTimeout(ctx, d.p.CommitRetry)
	defer cancel()
	return d.recoverSegment(ctx, seg)
}

// orphan is a prepared transaction that no session is at work on.
type orphan struct {
	gid, database string
	id            coordXid
}

// recoverSegment resolves the segment's orphans as the coordinator decided.
func (d *Dispatcher) recoverSegment(ctx context.Context, seg Segment) error {
	d.mu.Lock()
	s := d.stateOf(seg.Content)
	d.mu.Unlock()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	conn, err := d.connectSegment(ctx, seg, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	// The doubts known now are covered by the list read below.
	d.mu.Lock()
	known := make([]string, 0, len(s.doubts))
	for gid := range s.doubts {
		known = append(known, gid)
	}
	d.mu.Unlock()
	orphans, busy, err := d.orphans(ctx, conn)
	if err != nil {
		return err
	}
	d.mu.Lock()
	for _, o := range orphans {
		if _, there := s.doubts[o.gid]; !there {
			s.doubts[o.gid] = false // block must find it from now on
			known = append(known, o.gid)
		}
	}
	blocks := d.blocks
	d.mu.Unlock()
	left, err := d.resolve(ctx, seg, orphans)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.looked = true
	for _, gid := range known {
		switch {
		case slices.Contains(busy, gid):
		case !slices.Contains(left, gid):
			delete(s.doubts, gid)
		case blocks == d.blocks:
			s.doubts[gid] = false // undecided: visible nowhere, so nobody waits
		}
	}
	return nil
}

// orphans lists the cluster's prepared transactions on a segment: those
// without a session, and the names of those with one.
func (d *Dispatcher) orphans(ctx context.Context, conn *pgconn.PgConn) (list []orphan, busy []string, err error) {
	rows, err := query(ctx, conn, "SELECT gid, database FROM pg_catalog.pg_prepared_xacts WHERE pg_catalog.starts_with(gid, '"+gidPrefix+"')")
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rows {
		o := orphan{gid: string(r[0]), database: string(r[1])}
		id, ok := parseGid(o.gid)
		switch {
		case !ok:
			d.log.Warn("prepared transaction has a name that is not the cluster's; it is left alone", "gid", o.gid)
		case d.isLive(o.gid):
			busy = append(busy, o.gid)
		default:
			o.id = id
			list = append(list, o)
		}
	}
	return list, busy, nil
}

// coordXid is the coordinator's transaction that decides on a prepared one.
type coordXid struct {
	xid uint64
	era int64 // in which it was given; see EraSQL
}

// parseGid returns the coordinator's transaction that a gid names.
func parseGid(gid string) (id coordXid, ok bool) {
	rest, ok := strings.CutPrefix(gid, gidPrefix)
	parts := strings.Split(rest, "_")
	if !ok || len(parts) != 3 {
		return id, false
	}
	var err [3]error
	id.xid, err[0] = strconv.ParseUint(parts[0], 10, 64)
	_, err[1] = strconv.ParseInt(parts[1], 10, 32) // the session
	id.era, err[2] = strconv.ParseInt(parts[2], 10, 64)
	return id, errors.Join(err[:]...) == nil
}

// resolve finishes the orphans that are decided and returns those that are not.
func (d *Dispatcher) resolve(ctx context.Context, seg Segment, orphans []orphan) (left []string, err error) {
	if len(orphans) == 0 {
		return nil, nil
	}
	ids := make([]coordXid, len(orphans))
	for i, o := range orphans {
		ids[i] = o.id
	}
	status, err := d.xactStatus(ctx, ids)
	if err != nil {
		return nil, err
	}
	if err := d.block(ctx, orphans, status); err != nil {
		return nil, err
	}
	conns := make(map[string]*pgconn.PgConn)
	defer func() {
		for _, c := range conns {
			_ = c.Close(context.Background())
		}
	}()
	for _, o := range orphans {
		verb := ""
		switch status[o.id] {
		case statusCommitted:
			verb = "COMMIT"
		case statusAborted:
			verb = "ROLLBACK"
		default:
			left = append(left, o.gid)
			continue
		}
		// COMMIT PREPARED works in the transaction's own database only.
		c := conns[o.database]
		if c == nil {
			if c, err = d.connectSegment(ctx, seg, o.database); err != nil {
				return nil, err
			}
			conns[o.database] = c
		}
		_, err := query(ctx, c, verb+" PREPARED '"+o.gid+"'")
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code == codeNoSuchObject {
			err = nil // its session has finished it
		}
		if err != nil {
			return nil, fmt.Errorf("%s PREPARED %s: %w", verb, o.gid, err)
		}
		d.log.Info("in-doubt transaction resolved", "seg", seg.Content, "gid", o.gid, "outcome", status[o.id])
	}
	return left, nil
}

// block has statements wait for what is committed and about to be seen on one of
// its segments, and lets those come to an end that are just taking their snapshots.
func (d *Dispatcher) block(ctx context.Context, orphans []orphan, status map[coordXid]string) error {
	decided := slices.DeleteFunc(slices.Clone(orphans), func(o orphan) bool { return status[o.id] != statusCommitted })
	if len(decided) == 0 {
		return nil
	}
	h, err := d.latch.acquire(ctx, committing, d.p.LatchLimit, nil)
	if err != nil {
		return err
	}
	defer h.release()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocks++
	for _, o := range decided {
		for _, s := range d.state {
			if blocks, there := s.doubts[o.gid]; there && !blocks {
				s.doubts[o.gid] = true
				d.wake()
			}
		}
	}
	return nil
}

// connectSegment connects to a segment as the superuser, through its executor.
func (d *Dispatcher) connectSegment(ctx context.Context, seg Segment, database string) (*pgconn.PgConn, error) {
	cfg, err := pgConfig(d.cfg.Superuser, database, map[string]string{"application_name": "trunkline recovery"}, dialUnix(seg.Dir.QESocket()))
	if err != nil {
		return nil, err
	}
	return connectRetry(ctx, cfg, d.p.ConnectTimeout)
}

// connectCoordinator connects to the coordinator's PostgreSQL as the superuser.
func (d *Dispatcher) connectCoordinator(ctx context.Context) (*pgconn.PgConn, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		pm, err := d.cfg.Coordinator.Postmaster()
		if err != nil {
			return nil, err
		}
		return dialUnix(fmt.Sprintf("%s/.s.PGSQL.%d", d.cfg.Coordinator.SocketDir(), pm.Port))(ctx)
	}
	cfg, err := pgConfig(d.cfg.Superuser, "postgres", map[string]string{"application_name": "trunkline recovery"}, dial)
	if err != nil {
		return nil, err
	}
	conn, err := connectRetry(ctx, cfg, d.p.ConnectTimeout)
	if err != nil {
		return nil, fmt.Errorf("the coordinator's PostgreSQL cannot be asked: %w", err)
	}
	return conn, nil
}

// xactStatus asks the coordinator's PostgreSQL what became of transactions. A
// transaction it has never heard of was lost with an unflushed log, so it has not
// committed; nor has one whose id was given again since. One too old to be known
// is absent from the answer.
func (d *Dispatcher) xactStatus(ctx context.Context, ids []coordXid) (map[coordXid]string, error) {
	conn, err := d.connectCoordinator(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := d.noteEra(ctx, conn); err != nil {
		return nil, err
	}
	status := make(map[coordXid]string, len(ids))
	for _, id := range ids {
		if d.givenAgain(id) {
			status[id] = statusAborted
			continue
		}
		rows, err := query(ctx, conn, fmt.Sprintf("SELECT pg_catalog.pg_xact_status('%d'::xid8)", id.xid))
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code == codeInvalidParameter {
			status[id] = statusAborted // "is in the future"
			continue
		}
		if err != nil {
			return nil, err
		}
		if rows[0][0] != nil {
			status[id] = string(rows[0][0])
		}
	}
	return status, nil
}

// eraSQL is the era of the coordinator's PostgreSQL and the first transaction id
// that it may give in it: that of the checkpoint at the end of recovery, until the
// next checkpoint.
const eraSQL = EraSQL + ", (pg_catalog.split_part(c.next_xid, ':', 1)::bigint << 32) + pg_catalog.split_part(c.next_xid, ':', 2)::bigint " +
	"FROM pg_catalog.pg_control_checkpoint() AS c"

// noteEra remembers with which transaction id the era began that the coordinator's
// PostgreSQL is in.
func (d *Dispatcher) noteEra(ctx context.Context, conn *pgconn.PgConn) error {
	rows, err := query(ctx, conn, eraSQL)
	if err != nil {
		return err
	}
	era, err := strconv.ParseInt(string(rows[0][0]), 10, 64)
	if err != nil {
		return fmt.Errorf("the era of the coordinator's PostgreSQL: %w", err)
	}
	first, err := strconv.ParseUint(string(rows[0][1]), 10, 64)
	if err != nil {
		return fmt.Errorf("the next transaction id of the coordinator's PostgreSQL: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.eras[era]; !ok || first < known {
		d.eras[era] = first
	}
	return nil
}

// givenAgain says whether the coordinator's PostgreSQL has lost all memory of a
// transaction in a crash: a later era has begun with an id that is not above its.
// Whatever has that id now is another transaction.
func (d *Dispatcher) givenAgain(id coordXid) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for era, first := range d.eras {
		if era > id.era && first <= id.xid {
			return true
		}
	}
	return false
}

// query runs one statement and returns its rows.
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][][]byte, error) {
	res, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(res) == 0 {
		return nil, err
	}
	return res[len(res)-1].Rows, nil
}
