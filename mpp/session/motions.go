package session

import (
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// tunable is an interconnect whose parameters can be changed; execute has it.
type tunable interface {
	// Tune sets parameters for the motions opened from now on.
	Tune(params map[string]string) error
	// OnWarning sets who is told of warnings for the client.
	OnWarning(func(*motion.Error))
	// EndStatement writes down what a statement has cost.
	EndStatement(session int32, command uint32)
}

// motionSettings is a query for the names, with their prefix, and values of the
// parameters of motions. Those that are fixed at connection start get the value
// in fixed, if it is there, or else keep the one they have, whatever a later
// reload or RESET ALL brings.
func motionSettings(fixed map[string]string) string {
	var b strings.Builder
	b.WriteString("SELECT n, CASE WHEN f THEN pg_catalog.set_config(n, COALESCE(v, pg_catalog.current_setting(n, true), d), false) " +
		"ELSE COALESCE(pg_catalog.current_setting(n, true), d) END FROM (VALUES ")
	for i, name := range guc.Motions() {
		if i > 0 {
			b.WriteString(", ")
		}
		p, _ := guc.Lookup(name)
		value := "NULL"
		if v, ok := fixed[name]; ok && p.Context <= guc.Backend {
			value = catalog.Literal(v)
		}
		fmt.Fprintf(&b, "(%s, %s, %s, %t)", catalog.Literal(gucPrefix+name), catalog.Literal(p.Default), value, p.Context <= guc.Backend)
	}
	b.WriteString(") m(n, d, v, f)")
	return b.String()
}

// sensible makes values canonical. One that is wrong, which only set_config with
// an argument that is no constant can bring about, is put back to what it was.
func (s *Session) sensible(params map[string]string) error {
	var wrong []string
	for name, value := range params {
		p, _ := guc.Lookup(name)
		canonical, err := p.Parse(value)
		if err == nil {
			params[name] = canonical
			continue
		}
		params[name] = p.Default
		if was, ok := s.motionParams[name]; ok {
			params[name] = was
		}
		wrong = append(wrong, "pg_catalog.set_config("+catalog.Literal(gucPrefix+name)+", "+catalog.Literal(params[name])+", false)")
		e := pgError(err)
		s.notice("WARNING", e.Code, e.Message, "It stays as it was.")
	}
	if wrong == nil {
		return nil
	}
	_, err := s.local("SELECT " + strings.Join(wrong, ", "))
	return err
}

// passedOn are those of the parameters of motions that executors are given.
func passedOn(params map[string]string) map[string]string {
	m := maps.Clone(params)
	maps.DeleteFunc(m, func(name, _ string) bool {
		p, ok := guc.Lookup(name)
		return ok && p.NoSync
	})
	return m
}

// tune brings the session's own end of motions up to date.
func (s *Session) tune(params map[string]string) error {
	if t, ok := s.ic.(tunable); ok && !maps.Equal(params, s.motionParams) {
		if err := t.Tune(params); err != nil {
			return err
		}
	}
	s.motionParams = params
	return nil
}

// interconnect returns the session's access to motions.
func (s *Session) interconnect() (motion.Interconnect, error) {
	if s.ic != nil {
		return s.ic, nil
	}
	ic, err := s.srv.cfg.NewInterconnect(s.icType, s.motionParams)
	if err != nil {
		return nil, err
	}
	if t, ok := ic.(tunable); ok {
		t.OnWarning(func(e *motion.Error) {
			s.segmentNotice(int(s.srv.cfg.Content), &pgconn.Notice{Severity: "WARNING", SeverityUnlocalized: "WARNING",
				Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint})
		})
	}
	s.ic = ic
	return ic, nil
}

// motionsEnd is called when the motions of a command are closed.
func (s *Session) motionsEnd(command uint32) {
	if t, ok := s.ic.(tunable); ok {
		t.EndStatement(s.id, command)
	}
}
