package session

import (
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// A type's binary form, as far as there is text in it.
type binaryForm byte

const (
	formRaw       binaryForm = iota // no text in it
	formText                        // all of it is text
	formVersioned                   // a byte, then text
	formArray
	formRecord
	formUnknown // text is in it, in a form that is not converted
)

// formsSQL lists the types whose binary form is not raw. A type's send function
// tells: domains have that of their base type.
const formsSQL = `SELECT t.oid::bigint, CASE
    WHEN p.proname IN ('jsonb_send', 'jsonpath_send', 'ltree_send', 'lquery_send', 'ltxtq_send') THEN 2
    WHEN p.proname IN ('array_send', 'anyarray_send') THEN 3
    WHEN p.proname = 'record_send' THEN 4
    WHEN p.proname IN ('tsvectorsend', 'tsquerysend', 'hstore_send') OR p.proname IN ('range_send', 'multirange_send') AND t.oid >= 16384 THEN 5
    ELSE 1 END
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_proc p ON p.oid = t.typsend
  WHERE p.proname IN ('textsend', 'varcharsend', 'bpcharsend', 'namesend', 'unknownsend', 'json_send', 'xml_send', 'cstring_send', 'enum_send',
    'jsonb_send', 'jsonpath_send', 'ltree_send', 'lquery_send', 'ltxtq_send', 'array_send', 'anyarray_send', 'record_send',
    'tsvectorsend', 'tsquerysend', 'hstore_send') OR p.proname IN ('range_send', 'multirange_send') AND t.oid >= 16384`

// binaryForms are the forms of the types that are not raw, by OID; nil when
// they are not known.
type binaryForms map[uint32]binaryForm

// loadForms makes sure that the forms of all types are known, which replaces
// the link's unnamed statement and portal.
func (s *Session) loadForms() error {
	tick := s.srv.catalogTick.Load()
	if s.out.forms != nil && s.out.formsTick == tick {
		return nil
	}
	res, err := s.local(formsSQL)
	if err != nil {
		return err
	}
	forms := make(binaryForms, len(res.rows))
	for _, row := range res.rows {
		oid, _ := strconv.ParseUint(string(row[0]), 10, 32)
		form, _ := strconv.Atoi(string(row[1]))
		forms[uint32(oid)] = binaryForm(form)
	}
	s.out.forms, s.out.formsTick = forms, tick
	return nil
}

// errBinaryForm refuses a binary value that would go out, or come in, wrong.
func errBinaryForm(oid uint32, enc string) *pgconn.PgError {
	e := sqlError("0A000", "the binary form of type %d is not supported in client_encoding %s", oid, enc)
	e.Hint = "Ask for the text format, or set client_encoding to UTF8."
	return e
}

// binaryText converts the text in binary values.
type binaryText struct {
	forms binaryForms
	enc   string
	text  func(dst, src []byte) ([]byte, error)
	depth int
}

// maxDepth bounds values within values: a client may send any nonsense.
const maxDepth = 50

// convert appends the value v of a type with its text converted. A value that
// is not what its type says is appended as it is: PostgreSQL refuses it.
func (b *binaryText) convert(dst []byte, oid uint32, v []byte) ([]byte, error) {
	form := b.forms[oid]
	if b.forms == nil || b.depth > maxDepth {
		form = formUnknown
	}
	switch form {
	case formText:
		return b.text(dst, v)
	case formVersioned:
		if len(v) == 0 {
			return dst, nil
		}
		return b.text(append(dst, v[0]), v[1:])
	case formUnknown:
		return dst, errBinaryForm(oid, b.enc)
	case formArray, formRecord:
		b.depth++
		out, ok, err := b.parts(dst, form, v)
		b.depth--
		if ok || err != nil {
			return out, err
		}
		dst = out[:len(dst)]
	}
	return append(dst, v...), nil
}

// parts is convert for arrays and records. ok is false when v is none, or need
// not be converted.
func (b *binaryText) parts(dst []byte, form binaryForm, v []byte) (_ []byte, ok bool, err error) {
	head := 4
	var oid uint32
	if form == formArray {
		if len(v) < 12 {
			return dst, false, nil
		}
		oid = binary.BigEndian.Uint32(v[8:])
		if dims := binary.BigEndian.Uint32(v); dims <= 6 {
			head = 12 + 8*int(dims)
		}
		if b.forms[oid] == formRaw {
			return dst, false, nil
		}
	}
	if len(v) < head {
		return dst, false, nil
	}
	dst = append(dst, v[:head]...)
	for v = v[head:]; len(v) > 0; {
		if form == formRecord {
			if len(v) < 4 {
				return dst, false, nil
			}
			oid = binary.BigEndian.Uint32(v)
			dst, v = append(dst, v[:4]...), v[4:]
		}
		if len(v) < 4 {
			return dst, false, nil
		}
		n := int(int32(binary.BigEndian.Uint32(v)))
		v = v[4:]
		if n == -1 {
			dst = binary.BigEndian.AppendUint32(dst, nullLength)
			continue
		}
		if n < 0 || n > len(v) {
			return dst, false, nil
		}
		at := len(dst)
		if dst, err = b.convert(append(dst, 0, 0, 0, 0), oid, v[:n]); err != nil {
			return dst, false, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		v = v[n:]
	}
	return dst, true, nil
}

// nullLength stands in the place of the length of a NULL.
const nullLength = 1<<32 - 1
