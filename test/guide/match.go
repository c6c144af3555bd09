// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"regexp"
	"slices"
	"strings"
)

// anything stands for any text in a line, and alone for any lines.
const anything = "…"

// sorts are texts that differ from run to run: where a page shows one, another of
// the same sort does.
var sorts = []string{
	`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,                                            // UIDs
	`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`,                                                               // times
	`[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000`,                                           // times of describe
	`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b`,                                                                  // addresses
	`-[bcdfghjklmnpqrstvwxz2456789]{6,10}\b`,                                                                  // hashes of pod templates
	`-[bcdfghjklmnpqrstvwxz2456789]{5}\b`,                                                                     // generated names
	`<(?:unknown|invalid)>|\b\d+(?:\.\d+)?(?:ms|[smhdy])(?:\d+(?:ms|[smhd]))*\b(?: \(x\d+ over [0-9smh]+\))?`, // ages
	`sha256:[0-9a-f]{12,64}`,                                                                                  // images
	`:3[0-2]\d{3}\b`,                                                                                          // node ports
	`v1\.\d+\.\d+(?:\+\w+)?`,                                                                                  // versions
	`\b\d+(?:\.\d+)? (?:MiB|kB)\b`,                                                                            // sizes
	`\b\d+\.\d\d s$`,                                                                                          // times since a start
}

var special = compile()

func compile() *regexp.Regexp {
	var all []string
	for _, s := range sorts {
		all = append(all, "("+s+")")
	}
	return regexp.MustCompile(strings.Join(append(all, "("+anything+")"), "|"))
}

// pattern makes an expression of a shown line.
func pattern(shown string) *regexp.Regexp {
	shown = squeeze(shown)
	var out strings.Builder
	out.WriteString("^")
	last := 0
	for _, found := range special.FindAllStringSubmatchIndex(shown, -1) {
		out.WriteString(regexp.QuoteMeta(shown[last:found[0]]))
		last = found[1]
		for i, s := range sorts {
			if found[2*i+2] >= 0 {
				out.WriteString("(?:" + s + ")")
			}
		}
		if shown[found[0]:found[1]] == anything {
			out.WriteString(".*")
		}
	}
	out.WriteString(regexp.QuoteMeta(shown[last:]) + "$")
	return regexp.MustCompile(out.String())
}

// squeeze makes one space of many: columns are as wide as their widest value.
func squeeze(line string) string { return strings.Join(strings.Fields(line), " ") }

// givenUp is what client-go says, now and then, of a request that its program
// gave up while the answer came, as helm does once what it waits for is there.
var givenUp = regexp.MustCompile(`^E\d{4} .* request\.go:\d+\] "Unexpected error when reading response body" err="context canceled"$`)

// matches compares what was printed with what is shown. The second result is the
// first shown line that nothing matches.
func matches(shown []string, printed string) (bool, string) {
	var got []string
	for _, l := range strings.Split(strings.TrimRight(printed, "\n"), "\n") {
		if !givenUp.MatchString(l) {
			got = append(got, squeeze(strings.TrimRight(l, "\r")))
		}
	}
	for len(got) > 0 && got[len(got)-1] == "" {
		got = got[:len(got)-1]
	}
	for len(shown) > 0 && shown[len(shown)-1] == "" {
		shown = shown[:len(shown)-1]
	}
	// reached[j]: the shown lines so far can match the first j printed ones.
	reached := make([]bool, len(got)+1)
	reached[0] = true
	for _, l := range shown {
		next := make([]bool, len(got)+1)
		if strings.TrimSpace(l) == anything {
			on := false
			for j := range next {
				on = on || reached[j]
				next[j] = on
			}
		} else {
			p := pattern(l)
			for j := range got {
				next[j+1] = reached[j] && p.MatchString(got[j])
			}
		}
		if !slices.Contains(next, true) {
			return false, l
		}
		reached = next
	}
	if !reached[len(got)] {
		return false, "(the end)"
	}
	return true, ""
}
