// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"math/rand/v2"
	"net/http"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/route"
)

// choose gives a request to one of the rule's canaries, or to the rule.
func choose(table *route.Table, rule *route.Rule, r *http.Request) *route.Rule {
	for _, other := range table.Canaries(rule) {
		if takes(other.Settings.Canary, r) {
			return other
		}
	}
	return rule
}

// takes asks the header first, then the cookie, then chance, as ingress-nginx.
func takes(c *annotation.Canary, r *http.Request) bool {
	if c.Header != "" {
		switch v := r.Header.Get(c.Header); {
		case v == "":
		case c.Value != "":
			if v == c.Value {
				return true
			}
		case c.Pattern != nil:
			if c.Pattern.MatchString(v) {
				return true
			}
		case v == "always":
			return true
		case v == "never":
			return false
		}
	}
	if c.Cookie != "" {
		if cookie, err := r.Cookie(c.Cookie); err == nil {
			switch cookie.Value {
			case "always":
				return true
			case "never":
				return false
			}
		}
	}
	return c.Weight > 0 && rand.IntN(c.Total) < c.Weight
}
