// SPDX-License-Identifier: Apache-2.0

package nodenet

import (
	"strings"

	"github.com/google/nftables"

	"kaji/internal/netfilter"
)

// Blocked names the chains of this machine's firewall that drop what is forwarded
// unless a rule of theirs lets it pass, such as those Docker and ufw make. What
// pods send and get is forwarded.
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
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop || strings.HasPrefix(c.Table.Name, "kaji") {
			continue
		}
		if c.Type == nftables.ChainTypeFilter {
			out = append(out, c.Table.Name+" "+c.Name)
		}
	}
	return out, nil
}
