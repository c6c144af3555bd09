// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"iter"
	"strings"
)

// patterns are the hostnames that cover a host, the most specific first: itself,
// wildcards (of any number of labels) and "" for all.
func patterns(host string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if host != "" && !yield(host) {
			return
		}
		for rest := host; ; {
			_, after, ok := strings.Cut(rest, ".")
			if !ok || after == "" {
				break
			}
			if !yield("*." + after) {
				return
			}
			rest = after
		}
		yield("")
	}
}

// intersect returns the hostname of a route that a listener's lets through: the
// more specific of the two; false says that they have nothing in common.
func intersect(listener, route string) (string, bool) {
	switch {
	case listener == "" || listener == route:
		return route, true
	case route == "":
		return listener, true
	case covers(listener, route):
		return route, true
	case covers(route, listener):
		return listener, true
	}
	return "", false
}

// covers says whether a wildcard covers another hostname.
func covers(wildcard, host string) bool {
	suffix, ok := strings.CutPrefix(wildcard, "*")
	return ok && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
}
