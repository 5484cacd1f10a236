package session

import (
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// maxNotices bounds the notices that are kept during a statement.
const maxNotices = 1000

// segmentNotice keeps a segment's notice until the session can pass it on. It
// is called from dispatch's goroutines.
func (s *Session) segmentNotice(seg int, n *pgconn.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.analysis != nil && s.analysis.note(seg, n.Message) {
		return
	}
	shown := slices.Contains([]string{"INFO", "NOTICE", "WARNING"}, n.Severity)
	if !shown || s.hushed || len(s.notices) >= maxNotices {
		s.log("notice from a segment", "seg", seg, "severity", n.Severity, "message", n.Message)
		return
	}
	s.notices = append(s.notices, n)
}

// hush drops the segments' notices until the returned function is called: what
// each of them says of a statement that the coordinator ran as well.
func (s *Session) hush() func() {
	set := func(v bool) {
		s.mu.Lock()
		s.hushed = v
		s.mu.Unlock()
	}
	set(true)
	return func() { set(false) }
}

// dropNotices forgets what segments have said of a run that is not to be heard of.
func (s *Session) dropNotices() {
	s.mu.Lock()
	s.notices = nil
	s.mu.Unlock()
}

// passNotices sends the client what segments have said.
func (s *Session) passNotices() {
	s.mu.Lock()
	list := s.notices
	s.notices = nil
	s.mu.Unlock()
	for _, n := range list {
		e := errorResponse((*pgconn.PgError)(n))
		s.out.send((*pgproto3.NoticeResponse)(e))
	}
}
