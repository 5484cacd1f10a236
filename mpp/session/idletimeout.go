package session

import (
	"fmt"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// idleTimeouts are PostgreSQL's timeouts for clients that say nothing. The
// server's process takes a session whose statement runs on the segments alone for
// one of them, and would end it. So they are put off before a statement is
// dispatched and set again when the session waits for its client. Sessions
// without timeouts pay nothing.
type idleTimeouts struct {
	values  map[string]string // those that are not 0
	session bool              // they are put off for the session,
	local   bool              // for the transaction,
	unsure  bool              // or as they were at a savepoint
}

const (
	idleNames = "'idle_in_transaction_session_timeout','idle_session_timeout'"
	// idlePrefix marks them among the session's settings.
	idlePrefix = "idle:"
)

// note takes a value that was read. While they are put off it is not the user's.
func (i *idleTimeouts) note(name, value string) {
	switch {
	case value != "0":
		if i.values == nil {
			i.values = map[string]string{}
		}
		i.values[name] = value
	case !i.session && !i.local && !i.unsure:
		delete(i.values, name)
	}
}

// putOff keeps the server from ending the session while segments work.
func (s *Session) putOffIdle() error {
	i := &s.idle
	block := s.link.status == 'T' // where they may have been set again, for it alone
	if len(i.values) == 0 || !i.unsure && (i.local || i.session && !block) {
		return nil
	}
	i.unsure = false
	if block {
		i.local = true
	} else {
		i.session = true
	}
	return s.setIdle("0", block)
}

// blockEnds notes that what was set for the transaction is set no more.
func (i *idleTimeouts) blockEnds() { i.local, i.unsure = false, false }

// rolledBack notes that the transaction has gone back to a savepoint.
func (i *idleTimeouts) rolledBack() { i.local, i.unsure = false, true }

// restoreIdle sets the timeouts again before the session waits. In a failed
// transaction nothing can be set; its end brings the old values back.
func (s *Session) restoreIdle() {
	i := &s.idle
	if !i.session && !i.local && !i.unsure || s.link.broken != nil {
		return
	}
	switch s.link.status {
	case 'T':
		_ = s.setIdle("", true)
	case 'I':
		if i.session {
			_ = s.setIdle("", false)
		}
		i.session = false
	}
	i.blockEnds()
}

// setIdle sets the timeouts to value, or to what they were unless the user has
// set them meanwhile.
func (s *Session) setIdle(value string, local bool) error {
	var sets []string
	for name, was := range s.idle.values {
		set := fmt.Sprintf("SELECT pg_catalog.set_config('%s', ", name)
		if value != "" {
			sets = append(sets, set+fmt.Sprintf("%s, %t)", catalog.Literal(value), local))
		} else {
			sets = append(sets, set+fmt.Sprintf("%s, %t) WHERE pg_catalog.current_setting('%s') = '0'", catalog.Literal(was), local, name))
		}
	}
	_, err := s.local(strings.Join(sets, " UNION ALL "))
	return err
}
