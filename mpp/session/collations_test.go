package session

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestBytewise asks a server for its collations.
func TestBytewise(t *testing.T) {
	srv := pgtest.Start(t)
	open := func(db string) *Session {
		l, err := dialLink(t.Context(), filepath.Join(srv.Dir, fmt.Sprintf(".s.PGSQL.%d", srv.Port)), pgtest.Superuser, db, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.close)
		l.onBegin = func() {}
		s := &Session{srv: &Server{}, link: l}
		s.cache.reset(1)
		return s
	}
	s := open("postgres")
	run := func(sql string) {
		t.Helper()
		if _, err := s.link.query(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run(`CREATE COLLATION bytes (PROVIDER = libc, LOCALE = 'C'); CREATE COLLATION "of ""you""" (PROVIDER = libc, LOCALE = 'POSIX');
		CREATE COLLATION loose (PROVIDER = icu, LOCALE = 'und', DETERMINISTIC = false); CREATE COLLATION "C" (PROVIDER = icu, LOCALE = 'de')`)
	check := func(oid uint32, collation string, want bool) {
		t.Helper()
		for range 2 { // the second time it is known
			if got := s.mayMerge(oid, collation); got != want {
				t.Errorf("type %d, collation %s: %v, expected %v", oid, collation, got, want)
			}
		}
	}
	for _, c := range []string{"", `"default"`, `pg_catalog."default"`, `"C"`, `pg_catalog."C"`, `"POSIX"`, `"ucs_basic"`, `"bytes"`, `public."of ""you"""`} {
		check(25, c, true)
	}
	for _, c := range []string{`"de-x-icu"`, `public."C"`, `"loose"`, `"no such"`, `nowhere."C"`, `a.b.c.d`} {
		check(25, c, false)
	}
	check(23, "", true)
	check(1700, "", true)
	check(114, "", false) // json
	check(19, "", true)
	check(19, `"de-x-icu"`, false)
	s.cache.reset(2)
	run("SET search_path = public, pg_catalog")
	check(25, `"C"`, false)

	// C.UTF-8 is bytewise if the C library says so, which is asked for once.
	res, err := s.link.query(`SELECT quote_ident(collname), collcollate FROM pg_collation WHERE collcollate ~* '^c\.utf-?8$' AND collprovider = 'c' LIMIT 1`)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.rows) == 1 {
		name, locale := "pg_catalog."+string(res.rows[0][0]), string(res.rows[0][1])
		sorted, err := s.link.query("SELECT string_agg(c, '' ORDER BY c COLLATE " + name + ") = string_agg(c, '' ORDER BY c COLLATE pg_catalog.\"C\") " +
			"FROM (SELECT chr(i * 37) || 'x' FROM generate_series(1, 1400) i) s(c)")
		if err != nil {
			t.Fatal(err)
		}
		want := string(sorted.value()) == "t"
		check(25, name, want)
		s.cache.reset(3)
		s.srv.byteLocales.Store(locale, !want)
		check(25, name, !want)
	} else {
		t.Log("there is no locale C.UTF-8")
	}

	run("CREATE DATABASE german TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C'")
	run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
	s = open("german")
	check(25, "", false)
	check(25, `"C"`, true)
	check(20, "", true)
	s = open("latin")
	check(25, "", false)
	check(25, `"C"`, false)
	check(20, "", true)
}
