package cdbhash

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"math/bits"
	"slices"
)

// maxJSONDepth bounds the recursion into a document.
const maxJSONDepth = 6000

// Marks jsonb_hash leaves for containers and for the scalars that have no
// bytes.
const (
	jsonbArray  = 0x40000000
	jsonbObject = 0x20000000
	jsonbNull   = 0x01
	jsonbTrue   = 0x02
	jsonbFalse  = 0x04
)

// hashJSONB hashes the binary form of jsonb, which is a version byte and the
// document as text. Members are walked in jsonb's order (shorter keys first,
// the last of equal keys wins), so text a client wrote hashes like the stored
// document.
func hashJSONB(v []byte) (uint32, bool) {
	if len(v) < 2 || v[0] != 1 {
		return 0, false
	}
	d := json.NewDecoder(bytes.NewReader(v[1:]))
	d.UseNumber()
	root, ok := readJSON(d, 0)
	if !ok {
		return 0, false
	}
	if _, err := d.Token(); err != io.EOF {
		return 0, false
	}
	var sum uint32
	switch root.kind {
	case '{', '[':
		if len(root.kids) == 0 {
			return 0, true
		}
	default: // a bare scalar is stored as an array of one
		sum = jsonbArray
	}
	ok = root.hash(&sum)
	return sum, ok
}

type jsonNode struct {
	kind  byte // '{', '[', '"', '0' (number), or 's' (other scalar)
	key   string
	text  string
	value uint32 // of kind 's'
	kids  []jsonNode
}

func readJSON(d *json.Decoder, depth int) (jsonNode, bool) {
	tok, err := d.Token()
	if err != nil || depth > maxJSONDepth {
		return jsonNode{}, false
	}
	switch x := tok.(type) {
	case nil:
		return jsonNode{kind: 's', value: jsonbNull}, true
	case bool:
		if x {
			return jsonNode{kind: 's', value: jsonbTrue}, true
		}
		return jsonNode{kind: 's', value: jsonbFalse}, true
	case json.Number:
		return jsonNode{kind: '0', text: string(x)}, true
	case string:
		return jsonNode{kind: '"', text: x}, true
	case json.Delim:
		n := jsonNode{kind: byte(x)}
		for d.More() {
			var key string
			if x == '{' {
				k, err := d.Token()
				if err != nil {
					return jsonNode{}, false
				}
				key, _ = k.(string)
			}
			kid, ok := readJSON(d, depth+1)
			if !ok {
				return jsonNode{}, false
			}
			kid.key = key
			n.kids = append(n.kids, kid)
		}
		if _, err := d.Token(); err != nil { // the closing bracket
			return jsonNode{}, false
		}
		if x == '{' {
			n.sortMembers()
		}
		return n, true
	}
	return jsonNode{}, false
}

func (n *jsonNode) sortMembers() {
	slices.SortStableFunc(n.kids, func(a, b jsonNode) int {
		return cmp.Or(cmp.Compare(len(a.key), len(b.key)), cmp.Compare(a.key, b.key))
	})
	kept := n.kids[:0]
	for i, k := range n.kids {
		if i+1 < len(n.kids) && n.kids[i+1].key == k.key {
			continue
		}
		kept = append(kept, k)
	}
	n.kids = kept
}

func (n *jsonNode) hash(sum *uint32) bool {
	add := func(x uint32) { *sum = bits.RotateLeft32(*sum, 1) ^ x }
	switch n.kind {
	case 's':
		add(n.value)
	case '"':
		add(hashBytes([]byte(n.text)))
	case '0':
		num, ok := appendNumeric(nil, []byte(n.text))
		if !ok {
			return false
		}
		x, ok := hashNumeric(num)
		if !ok {
			return false
		}
		add(x)
	default:
		mark := uint32(jsonbArray)
		if n.kind == '{' {
			mark = jsonbObject
		}
		*sum ^= mark
		for i := range n.kids {
			if n.kind == '{' {
				add(hashBytes([]byte(n.kids[i].key)))
			}
			if !n.kids[i].hash(sum) {
				return false
			}
		}
	}
	return true
}
