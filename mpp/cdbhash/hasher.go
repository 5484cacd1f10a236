package cdbhash

import (
	"fmt"
	"math/bits"

	"github.com/jackc/pgx/v5/pgconn"
)

// Hasher hashes the rows of one table by its distribution key. It does not
// change after NewHasher: any number of goroutines may use one.
type Hasher struct {
	keys []*typ
}

// NewHasher makes a Hasher for distribution key columns of these types, in
// key order. An enum column is given as oid (26) and its values as the
// four-byte oid of their pg_enum row; a domain column as its base type. A
// type that cannot be hashed is a *pgconn.PgError with SQLSTATE 42704.
// No columns make a Hasher that sends every row to the same segment.
func NewHasher(typeOIDs []uint32) (*Hasher, error) {
	h := &Hasher{keys: make([]*typ, len(typeOIDs))}
	for i, oid := range typeOIDs {
		t := types[oid]
		if t == nil {
			return nil, &pgconn.PgError{
				Severity: "ERROR",
				Code:     "42704",
				Message: fmt.Sprintf(`data type %s has no default operator class for access method "hash"`,
					typeName(oid)),
				Hint: "Choose distribution key columns of other types, or use DISTRIBUTED RANDOMLY.",
			}
		}
		h.keys[i] = t
	}
	return h, nil
}

// Hash is the hash of a row whose distribution key columns have these
// values, each as PostgreSQL's binary send function writes it, nil for NULL.
// The values are only read and not kept. A value that is not in its type's
// binary format is a *pgconn.PgError with SQLSTATE 22P03; a wrong number of
// values is one with XX000. It does not allocate, except for jsonb and for
// numerics of more than 512 digits.
func (h *Hasher) Hash(values [][]byte) (uint32, error) {
	if len(values) != len(h.keys) {
		return 0, &pgconn.PgError{
			Severity: "ERROR",
			Code:     "XX000",
			Message: fmt.Sprintf("distribution key has %d columns but %d values were given",
				len(h.keys), len(values)),
		}
	}
	var sum uint32
	for i, v := range values {
		sum = bits.RotateLeft32(sum, 1)
		if v == nil {
			continue
		}
		x, ok := h.keys[i].hash(v)
		if !ok {
			return 0, &pgconn.PgError{
				Severity: "ERROR",
				Code:     "22P03",
				Message: fmt.Sprintf("incorrect binary data format in distribution key column %d (type %s)",
					i+1, h.keys[i].name),
			}
		}
		sum ^= x
	}
	return sum, nil
}

// Segment is the content id, 0..n-1, of the segment a row belongs to in a
// table whose policy counts n segments. The values and errors are those of
// Hash; n below 1 is an error.
func (h *Hasher) Segment(values [][]byte, n int) (int, error) {
	if n < 1 {
		return 0, &pgconn.PgError{
			Severity: "ERROR",
			Code:     "XX000",
			Message:  fmt.Sprintf("cannot distribute rows over %d segments", n),
		}
	}
	sum, err := h.Hash(values)
	if err != nil {
		return 0, err
	}
	return Jump(uint64(sum), n), nil
}
