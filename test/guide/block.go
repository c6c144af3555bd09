// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"fmt"
	"strings"
)

// step is one command of a page and what the page says it prints.
type step struct {
	line     int // in the page
	command  string
	expected []string
}

// quote is a block of a page that shows a file of the tree.
type quote struct {
	line int
	file string
	text string
}

// parse takes the console blocks and the quoted files out of a page.
func parse(page string) (steps []step, quotes []quote, err error) {
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		info, ok := strings.CutPrefix(lines[i], "```")
		if !ok {
			continue
		}
		start := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		if i == len(lines) {
			return nil, nil, fmt.Errorf("line %d: a block that does not end", start)
		}
		switch kind, file, _ := strings.Cut(info, " "); {
		case kind == "console":
			found, err := commands(lines[start:i], start)
			if err != nil {
				return nil, nil, err
			}
			steps = append(steps, found...)
		case kind == "yaml" && file != "":
			quotes = append(quotes, quote{line: start, file: file, text: strings.Join(lines[start:i], "\n") + "\n"})
		}
	}
	return steps, quotes, nil
}

// commands parts a console block; first is its first line's index in the page.
func commands(lines []string, first int) ([]step, error) {
	var steps []step
	for i, l := range lines {
		if command, ok := strings.CutPrefix(l, "$ "); ok {
			steps = append(steps, step{line: first + i + 1, command: command})
			continue
		}
		if len(steps) == 0 {
			return nil, fmt.Errorf("line %d: output before the first command", first+i+1)
		}
		last := &steps[len(steps)-1]
		if more, ok := strings.CutPrefix(l, "> "); ok && len(last.expected) == 0 {
			last.command += "\n" + more
			continue
		}
		last.expected = append(last.expected, l)
	}
	return steps, nil
}

// interactive says that the step needs a terminal.
func (s step) interactive() bool {
	return strings.Contains(s.command, " -it ") || strings.Contains(s.command, " -ti ")
}

// background says that the command goes on while the next ones run.
func (s step) background() bool { return strings.HasSuffix(s.command, "&") }

// reading are commands that change nothing: a reader whose cluster is slower than
// the page's looks again.
var reading = []string{"kubectl get ", "kubectl describe ", "kubectl logs ", "kubectl top ", "kubectl events", "kubectl auth ", "kubectl exec ",
	"kubectl rollout status ", "kubectl rollout history ", "kubectl wait ", "kubectl api-resources", "curl ", "kaji status", "kubectl explain ", "helm list", "helm history ", "kubectl diff "}

func (s step) repeatable() bool {
	for _, prefix := range reading {
		if strings.HasPrefix(s.command, prefix) {
			return true
		}
	}
	return false
}
