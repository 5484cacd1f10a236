package benchreport

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is a title, a heading and rows of as many cells.
type Table struct {
	Title string
	Head  []string
	// Left is how many columns, from the first on, are aligned to the left.
	Left int
	// Remarks says that the last column is aligned to the left, too.
	Remarks bool
	Rows    [][]string
}

// Add adds a row; missing cells are empty.
func (t *Table) Add(cells ...string) {
	for len(cells) < len(t.Head) {
		cells = append(cells, "")
	}
	t.Rows = append(t.Rows, cells)
}

// Text prints the table for a terminal, with the heading in capitals.
func (t *Table) Text(w io.Writer) {
	width := make([]int, len(t.Head))
	rows := append([][]string{make([]string, len(t.Head))}, t.Rows...)
	for i, h := range t.Head {
		rows[0][i] = strings.ToUpper(h)
	}
	for _, row := range rows {
		for i, cell := range row {
			// A lone cell in a row is a remark, and may be long.
			if len(row) == 1 || cell == "" || !t.remark(row, i) {
				width[i] = max(width[i], utf8.RuneCountInString(cell))
			}
		}
	}
	fmt.Fprintf(w, "\n%s\n", t.Title)
	for _, row := range rows {
		line := " "
		for i, cell := range row {
			pad := strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(cell)))
			if t.left(i) || t.remark(row, i) {
				line += " " + cell + pad + " "
			} else {
				line += " " + pad + cell + " "
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// left says whether column i is aligned to the left.
func (t *Table) left(i int) bool { return i < t.Left || t.Remarks && i == len(t.Head)-1 }

// remark says that cell i is the last with text in the row though there are
// more columns: a sentence, to be printed over them.
func (t *Table) remark(row []string, i int) bool {
	if i < t.Left || row[i] == "" {
		return false
	}
	for j := t.Left; j < len(row); j++ {
		if j != i && row[j] != "" {
			return false
		}
	}
	return len(row) > t.Left+1
}

// Markdown prints the table as GitHub reads it.
func (t *Table) Markdown(w io.Writer) {
	escape := strings.NewReplacer("|", `\|`, "\n", " ")
	fmt.Fprintf(w, "\n### %s\n\n", t.Title)
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(w, "| %s ", escape.Replace(c))
		}
		fmt.Fprintln(w, "|")
	}
	line(t.Head)
	for i := range t.Head {
		if t.left(i) {
			fmt.Fprint(w, "|---")
		} else {
			fmt.Fprint(w, "|--:")
		}
	}
	fmt.Fprintln(w, "|")
	for _, row := range t.Rows {
		line(row)
	}
}

// HTML prints the table as a section.
func (t *Table) HTML(w io.Writer) {
	fmt.Fprintf(w, "<h3>%s</h3>\n<table>\n", html.EscapeString(t.Title))
	line := func(tag string, cells []string) {
		fmt.Fprint(w, "<tr>")
		for i, c := range cells {
			class := ""
			switch {
			case c == "MISSED":
				class = ` class="missed"`
			case t.left(i):
				class = ` class="left"`
			}
			fmt.Fprintf(w, "<%s%s>%s</%s>", tag, class, html.EscapeString(c), tag)
		}
		fmt.Fprintln(w, "</tr>")
	}
	line("th", t.Head)
	for _, row := range t.Rows {
		line("td", row)
	}
	fmt.Fprintln(w, "</table>")
}
