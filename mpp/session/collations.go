package session

import (
	"strings"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/merge"
)

// mayMerge is plan.Options.Merges: whether this session compares values as
// PostgreSQL does. Where it cannot find out it does not.
func (s *Session) mayMerge(typeOID uint32, collation string) bool {
	if !merge.Comparable(typeOID) || !merge.Collates(typeOID) {
		return merge.Comparable(typeOID)
	}
	const name = 19 // the type whose default is no database's
	if typeOID == name && collation == "" {
		collation = `pg_catalog."C"`
	}
	yes, ok := s.cache.bytewise[collation]
	if !ok {
		var err error
		if yes, err = s.bytewise(collation); err == nil {
			s.cache.bytewise[collation] = yes
		}
	}
	return yes
}

// bytewise says whether a collation, "" for the database's, compares the bytes of
// texts as they travel, in UTF-8.
func (s *Session) bytewise(collation string) (bool, error) {
	if s.link.params["server_encoding"] != "UTF8" {
		return false, nil
	}
	const database = "SELECT datlocprovider, datcollate FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
	ask := database
	if collation != "" {
		ask = "SELECT collprovider, collcollate FROM pg_catalog.pg_collation WHERE collisdeterministic AND oid = pg_catalog.to_regcollation(" +
			catalog.Literal(collation) + ")"
	}
	res, err := s.local(ask)
	if err == nil && len(res.rows) == 1 && string(res.rows[0][0]) == "d" {
		ask, collation = database, ""
		res, err = s.local(ask)
	}
	if err != nil || len(res.rows) != 1 || string(res.rows[0][0]) != "c" {
		return false, err
	}
	locale := string(res.rows[0][1])
	switch strings.ToLower(locale) {
	case "c", "posix":
		return true, nil
	case "c.utf-8", "c.utf8":
	default:
		return false, nil
	}
	// The C library compares these, not PostgreSQL, and libraries have not always
	// done it alike.
	if yes, ok := s.srv.byteLocales.Load(locale); ok {
		return yes.(bool), nil
	}
	if collation != "" {
		collation = " COLLATE " + collation
	}
	res, err = s.local("SELECT pg_catalog.bool_and(a OPERATOR(pg_catalog.<) b" + collation + ") FROM (" +
		"SELECT pg_catalog.chr(c) OPERATOR(pg_catalog.||) 'b', pg_catalog.chr(pg_catalog.lead(c) OVER (ORDER BY c)) OPERATOR(pg_catalog.||) 'a' " +
		"FROM (SELECT pg_catalog.generate_series(1, 1023) UNION SELECT pg_catalog.generate_series(1024, 1114111, 61)) s(c) " +
		"WHERE c NOT BETWEEN 55296 AND 57343) p(a, b)") // these are no characters
	if err != nil {
		return false, err
	}
	yes := string(res.value()) == "t"
	s.srv.byteLocales.Store(locale, yes)
	return yes, nil
}
