// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"kaji/internal/netfilter"
)

// Blocked names the chains of this machine's firewall that drop or refuse what is
// forwarded unless a rule of theirs lets it pass, such as those Docker, ufw and
// firewalld make, the old iptables' among them. What pods send and get is forwarded.
func Blocked() ([]string, error) {
	conn, err := netfilter.Open(0)
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Type != nftables.ChainTypeFilter || strings.HasPrefix(c.Table.Name, "kaji") {
			continue
		}
		blocks := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		if !blocks {
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				return nil, fmt.Errorf("rules of %s %s: %w", c.Table.Name, c.Name, err)
			}
			blocks = len(rules) > 0 && refusesAll(rules[len(rules)-1])
		}
		if blocks {
			out = append(out, c.Table.Name+" "+c.Name)
		}
	}
	old, err := legacyBlocked()
	return append(out, old...), err
}

// refusesAll says whether a rule drops or refuses whatever comes to it.
func refusesAll(r *nftables.Rule) bool {
	refuses := false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			refuses = true
		case *expr.Target: // of iptables
			refuses = e.Name == "REJECT" || e.Name == "DROP"
		case *expr.Verdict:
			refuses = e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return refuses
}
