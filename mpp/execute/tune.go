package execute

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
)

// TuneMarker starts the text of a Query message that changes parameters of the
// executor's motions: the rest is a JSON object of names and values. The
// executor answers without its PostgreSQL. The change holds until the next
// one, whatever becomes of the transaction.
const TuneMarker = "\x01tune "

// TuneQuery returns the text of the Query message that sets params.
func TuneQuery(params map[string]string) (string, error) {
	b, err := json.Marshal(params)
	if err != nil {
		return "", err
	}
	return TuneMarker + string(b), nil
}

// tune obeys such a message and returns the answer.
func (q *session) tune(text []byte) []byte {
	var params map[string]string
	if err := json.Unmarshal(text, &params); err != nil {
		return q.appendFailure(nil, &motion.Error{Code: "08P01", Message: fmt.Sprintf("invalid parameters of motions: %v", err)})
	}
	if ic, ok := q.ic.(*Interconnect); ok {
		if err := ic.Tune(params); err != nil {
			return q.appendFailure(nil, err)
		}
	}
	return q.appendReady(appendMessage(nil, &pgproto3.CommandComplete{CommandTag: []byte("SET")}))
}

// openInterconnect makes the executor's interconnect from the startup
// parameters and the instance's own. A failure is kept for the first motion: a
// session without motions never needs one.
func (q *session) openInterconnect(given map[string]string) {
	typ := given[guc.InterconnectType]
	if p, ok := guc.Lookup(guc.InterconnectType); ok && typ == "" {
		typ = p.Default
	}
	q.own = q.srv.own.Load()
	params := maps.Clone(*q.own)
	maps.Copy(params, given)
	q.ic, q.icErr = q.srv.cfg.NewInterconnect(typ, params)
	if ic, ok := q.ic.(*Interconnect); ok {
		ic.OnWarning(q.warn)
	}
}

// warn sends the dispatcher a warning of the interconnect.
func (q *session) warn(e *motion.Error) {
	n := &pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
	b := appendMessage(nil, n)
	q.warnings.Go(func() { _ = q.reply(b) }) // the interconnect does not wait for the dispatcher
}

func (q *session) closeInterconnect() {
	if q.ic != nil {
		_ = q.ic.Close()
	}
	q.warnings.Wait()
}

// statementEnds is called when the slices of a command are closed.
func (q *session) statementEnds(command uint32) {
	if ic, ok := q.ic.(*Interconnect); ok {
		ic.EndStatement(q.sessionID, command)
	}
}

// readOwn takes over the instance's own values.
func (s *Server) readOwn() {
	var now map[string]string
	if s.cfg.Own != nil {
		now = s.cfg.Own()
	}
	own := map[string]string{}
	for _, name := range guc.Motions() {
		if p, _ := guc.Lookup(name); p.NoSync {
			own[name] = p.Default
			if v, ok := now[name]; ok {
				own[name] = v
			}
		}
	}
	s.own.Store(&own)
}

// Reload reads the instance's own parameters of motions again, for the motions
// that its executors open from now on.
func (s *Server) Reload() {
	s.readOwn()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.sessions {
		q.tuneOwn()
	}
}

// tuneOwn brings the executor's motions up to date with the instance's
// parameters. Under the server's mutex.
func (q *session) tuneOwn() {
	ic, ok := q.ic.(*Interconnect)
	own := q.srv.own.Load()
	if !ok || q.own == own {
		return
	}
	q.own = own
	if err := ic.Tune(*own); err != nil {
		q.srv.log.Warn("an executor keeps its parameters of motions", "session", q.sessionID, "pid", q.pid, "err", err)
	}
}
