package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// encodings are the client encodings that clients have asked for. Their tables
// come from the local PostgreSQL, once in the life of the server, so that
// every character becomes what it becomes there. ask runs SQL as superuser in
// a database in UTF-8.
type encodings struct {
	ask func(ctx context.Context, sql string) (*result, error)

	mu    sync.Mutex
	names map[string]string    // PostgreSQL's spelling by the client's, in lower case
	made  map[string]*encoding // by PostgreSQL's spelling
}

// encodingLimit bounds the reading of tables: a fraction of a second.
const encodingLimit = 30 * time.Second

// find returns an encoding and its name as PostgreSQL spells it. Encodings that
// need no conversion are nil. Its errors are those of SET client_encoding. It
// may be called by many goroutines; they wait for each other.
func (s *encodings) find(ctx context.Context, name string) (string, *encoding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, done := context.WithTimeout(ctx, encodingLimit)
	defer done()
	key := strings.ToLower(name)
	spelled, ok := s.names[key]
	if !ok {
		res, err := s.ask(ctx, "SELECT pg_catalog.pg_encoding_to_char(pg_catalog.pg_char_to_encoding("+catalog.Literal(name)+"))")
		if err != nil {
			return "", nil, err
		}
		if spelled = string(res.value()); spelled == "" {
			return "", nil, sqlError("22023", "invalid value for parameter \"client_encoding\": %q", name)
		}
		if s.names == nil {
			s.names, s.made = map[string]string{}, map[string]*encoding{}
		}
		s.names[key] = spelled // there are not many
	}
	if spelled == "UTF8" || spelled == "SQL_ASCII" {
		return spelled, nil, nil
	}
	if e := s.made[spelled]; e != nil {
		return spelled, e, nil
	}
	e, err := s.load(ctx, spelled)
	if err == nil && e == nil {
		err = sqlError("0A000", "invalid value for parameter \"client_encoding\": %q", name)
		pgError(err).Detail = "Conversion between " + spelled + " and UTF8 is not supported."
	}
	if err != nil {
		return "", nil, err
	}
	s.made[spelled] = e
	return spelled, e, nil
}

// load reads an encoding's tables; nil when it is not converted.
func (s *encodings) load(ctx context.Context, name string) (*encoding, error) {
	quoted := catalog.Literal(name)
	res, err := s.ask(ctx, "SELECT pg_catalog.pg_encoding_max_length(pg_catalog.pg_char_to_encoding("+quoted+"))")
	if err != nil {
		return nil, err
	}
	e := &encoding{name: name, layout: singleByte, to: make([]uint32, 1<<16), from: make([]uint16, 1<<16), long: map[uint32]uint16{}}
	single := string(res.value()) == "1"
	sql := tableFunctions + "SELECT true, * FROM pg_temp.decoded(" + quoted + ", '', 128, 255)"
	if !single {
		var ok bool
		if e.layout, ok = layouts[name]; !ok {
			return nil, nil
		}
		sql += " UNION ALL SELECT true, * FROM pg_temp.decoded(" + quoted + ", '', 33024, 65535)" +
			" UNION ALL SELECT false, * FROM pg_temp.encoded(" + quoted + ")"
		if prefix := aliases[name]; prefix != "" {
			sql += " UNION ALL SELECT true, * FROM pg_temp.decoded(" + quoted + ", '" + prefix + "', 41377, 65278)"
		}
	}
	if res, err = s.ask(ctx, sql); err != nil {
		return nil, err
	}
	if len(res.rows) == 0 {
		return nil, nil // PostgreSQL has no conversion either
	}
	for _, row := range res.rows {
		decoded := string(row[0]) == "t"
		code, err1 := strconv.ParseUint(string(row[1]), 16, 32)
		point, err2 := strconv.ParseUint(string(row[2]), 10, 16)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("the table of encoding %s: %w", name, err)
		}
		if decoded && code <= 0xffff {
			e.from[code] = uint16(point)
		} else if code > 0xffff {
			e.long[uint32(code)] = uint16(point)
		}
		if !decoded || single {
			e.to[point] = uint32(code)
		}
	}
	return e, nil
}

// aliases are the prefixes under which codes of more than two bytes repeat
// characters that have another code.
var aliases = map[string]string{"EUC_JP": "8f", "EUC_TW": "8ea1"}

// tableFunctions list an encoding character by character, for a conversion of
// several stops at the first that has no equivalent. ASCII is left out.
const tableFunctions = `
CREATE FUNCTION pg_temp.encoded(enc name, OUT code text, OUT point integer) RETURNS SETOF record
  LANGUAGE plpgsql SET search_path = pg_catalog AS $f$
BEGIN
  FOR c IN 128..65535 LOOP
    CONTINUE WHEN c BETWEEN 55296 AND 57343;
    BEGIN
      code := encode(convert_to(chr(c), enc), 'hex'); point := c;
      RETURN NEXT;
    EXCEPTION WHEN untranslatable_character THEN
    END;
  END LOOP;
END $f$;
CREATE FUNCTION pg_temp.decoded(enc name, prefix text, low integer, high integer, OUT code text, OUT point integer) RETURNS SETOF record
  LANGUAGE plpgsql SET search_path = pg_catalog AS $f$
DECLARE t text;
BEGIN
  FOR c IN low..high LOOP
    BEGIN
      code := prefix || to_hex(c);
      t := convert_from(decode(code, 'hex'), enc);
      IF length(t) = 1 THEN
        point := ascii(t);
        RETURN NEXT;
      END IF;
    EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN
    END;
  END LOOP;
END $f$;
`
