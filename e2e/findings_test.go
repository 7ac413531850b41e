package e2e

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// findings are what came of each case on each store in each mode.
type findings struct {
	mode          string // of what is found now, on the last of the stores
	names, stores []string
	cells         map[[2]string][]finding // by name and store
}

type finding struct{ mode, text string }

func (f *findings) note(name, text string) {
	if !slices.Contains(f.names, name) {
		f.names = append(f.names, name)
	}
	cell := [2]string{name, f.stores[len(f.stores)-1]}
	f.cells[cell] = append(f.cells[cell], finding{f.mode, text})
}

// String is a table in Markdown.
func (f *findings) String() string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintf(tw, "| case\t| %s\t|\n|---%s\t|\n", strings.Join(f.stores, "\t| "), strings.Repeat("\t|---", len(f.stores)))
	for _, name := range f.names {
		fmt.Fprintf(tw, "| %s", strings.ReplaceAll(name, "|", `\|`))
		for _, store := range f.stores {
			fmt.Fprintf(tw, "\t| %s", cellOf(f.cells[[2]string{name, store}]))
		}
		fmt.Fprint(tw, "\t|\n")
	}
	tw.Flush()
	return b.String()
}

// cellOf has one text for all modes that found the same. Modes that are not
// there have failed, or were not asked for.
func cellOf(found []finding) string {
	var texts []string
	by := map[string][]string{}
	for _, f := range found {
		if by[f.text] == nil {
			texts = append(texts, f.text)
		}
		by[f.text] = append(by[f.text], f.mode)
	}
	if len(texts) == 1 && len(found) == len(modes) {
		return texts[0]
	}
	var cell []string
	for _, text := range texts {
		cell = append(cell, fmt.Sprintf("%s (%s)", text, strings.Join(by[text], ", ")))
	}
	if len(found) < len(modes) {
		cell = append(cell, "the rest: not passed")
	}
	return strings.Join(cell, "; ")
}
