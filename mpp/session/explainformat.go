package session

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// keyOrder is the order in which plans print what they say of a node, or of the
// statement. What is not in it comes, by name, in the place of "".
var keyOrder = func() map[string]int {
	order := map[string]int{}
	for i, k := range []string{"Plan", "Node Type", "Senders", "Receivers", "Slice", "Segments", "Gang Type", "Operation", "Strategy", "Partial Mode",
		"Parent Relationship", "Subplan Name", "Parallel Aware", "Async Capable", "Join Type", "Scan Direction", "Index Name", "Relation Name",
		"Function Name", "Schema", "Alias", "Startup Cost", "Total Cost", "Plan Rows", "Plan Width",
		"Actual Startup Time", "Actual Total Time", "Actual Rows", "Actual Loops", "Output", "Hash Key", "Merge Key", "Distributed",
		"Workers", "Rows Out", "Maximum Rows Out", "Bytes Sent", "Packets Sent", "Rows Written", "Maximum Rows Written", "Bytes Received", "Written By", "Statements", "Time",
		"", "Plans", "Not Pushed Down", "Planning", "Planning Time", "Triggers", "Slice statistics", "Interconnect", "Optimizer", "Execution Time"} {
		order[k] = i
	}
	return order
}()

// inOrder are the keys of m as they are to be printed.
func inOrder(m map[string]any) []string {
	rank := func(k string) int {
		if i, ok := keyOrder[k]; ok {
			return i
		}
		return keyOrder[""]
	}
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
	})
}

// printPlan prints a whole plan, of which p is the tree and rest what else there
// is to say, as json, yaml or xml.
func printPlan(format string, p planNode, rest map[string]any) (string, error) {
	out := maps.Clone(rest)
	if out == nil {
		out = map[string]any{}
	}
	out["Plan"] = p
	raw, err := json.Marshal(out)
	if err != nil {
		return "", err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var all map[string]any
	if err := dec.Decode(&all); err != nil {
		return "", err
	}
	var b planPrinter
	switch format {
	case "json":
		b.json([]any{all}, 0)
	case "yaml":
		b.yamlItem(all, 0)
	default:
		b.WriteString("<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n")
		b.xml("Query", all, 1)
		b.WriteString("</explain>")
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

// planPrinter takes what JSON is decoded to.
type planPrinter struct{ strings.Builder }

func (b *planPrinter) line(indent int, format string, args ...any) {
	b.WriteString(strings.Repeat("  ", indent))
	fmt.Fprintf(b, format, args...)
}

// scalar is a value in JSON, which is YAML too.
func scalar(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // it was decoded
	return strings.TrimSpace(b.String())
}

// objects says whether a list is one of objects.
func objects(list []any) bool {
	return slices.ContainsFunc(list, func(v any) bool { _, ok := v.(map[string]any); return ok })
}

func (b *planPrinter) json(v any, indent int) {
	switch v := v.(type) {
	case map[string]any:
		b.WriteString("{\n")
		for i, k := range inOrder(v) {
			if i > 0 {
				b.WriteString(",\n")
			}
			b.line(indent+1, "%s: ", scalar(k))
			b.json(v[k], indent+1)
		}
		b.WriteString("\n")
		b.line(indent, "}")
	case []any:
		if !objects(v) {
			items := make([]string, len(v))
			for i := range v {
				items[i] = scalar(v[i])
			}
			b.WriteString("[" + strings.Join(items, ", ") + "]")
			return
		}
		b.WriteString("[\n")
		for i := range v {
			if i > 0 {
				b.WriteString(",\n")
			}
			b.line(indent+1, "")
			b.json(v[i], indent+1)
		}
		b.WriteString("\n")
		b.line(indent, "]")
	default:
		b.WriteString(scalar(v))
	}
}

// yamlItem prints one item of a list.
func (b *planPrinter) yamlItem(v any, indent int) {
	m, ok := v.(map[string]any)
	if !ok {
		b.line(indent, "- %s\n", scalar(v))
		return
	}
	for i, k := range inOrder(m) {
		if i == 0 {
			b.line(indent, "- ")
		} else {
			b.line(indent+1, "")
		}
		b.yamlValue(k, m[k], indent+1)
	}
}

func (b *planPrinter) yamlValue(k string, v any, indent int) {
	switch v := v.(type) {
	case map[string]any:
		fmt.Fprintf(b, "%s: \n", k)
		for _, k := range inOrder(v) {
			b.line(indent+1, "")
			b.yamlValue(k, v[k], indent+1)
		}
	case []any:
		if len(v) == 0 {
			fmt.Fprintf(b, "%s: []\n", k)
			return
		}
		fmt.Fprintf(b, "%s: \n", k)
		for _, item := range v {
			b.yamlItem(item, indent+1)
		}
	default:
		fmt.Fprintf(b, "%s: %s\n", k, scalar(v))
	}
}

var notInTags = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

func (b *planPrinter) xml(k string, v any, indent int) {
	tag := notInTags.ReplaceAllString(k, "-")
	switch v := v.(type) {
	case map[string]any:
		b.line(indent, "<%s>\n", tag)
		for _, k := range inOrder(v) {
			b.xml(k, v[k], indent+1)
		}
		b.line(indent, "</%s>\n", tag)
	case []any:
		b.line(indent, "<%s>\n", tag)
		item := "Item"
		if objects(v) {
			item = map[string]string{"Slice statistics": "Slice"}[k]
			if item == "" {
				item = strings.TrimSuffix(k, "s")
			}
		}
		for i := range v {
			b.xml(item, v[i], indent+1)
		}
		b.line(indent, "</%s>\n", tag)
	default:
		text := fmt.Sprint(v)
		if v == nil {
			text = ""
		}
		b.line(indent, "<%s>", tag)
		_ = xml.EscapeText(b, []byte(text)) // a builder takes all
		fmt.Fprintf(b, "</%s>\n", tag)
	}
}
