// SPDX-License-Identifier: Apache-2.0

package nstest

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kaji/internal/netfilter"
)

// Foreign are rules of others in a namespace's packet filter.
type Foreign struct {
	n *Namespace
	// tables are those of nftables, by family and name.
	tables map[tableID]bool
	sets   map[tableID][]string
	before string
}

type tableID struct {
	family byte
	name   string
}

// Foreign fills the packet filter as Docker, firewalls and other proxies do:
// tables with names, chains and priorities like kaji's own, and the old
// iptables where they are there. None of it holds up a packet.
func (n *Namespace) Foreign() *Foreign {
	n.t.Helper()
	f := &Foreign{n: n, tables: map[tableID]bool{}, sets: map[tableID][]string{}}
	n.Do(func() error {
		conn, err := netfilter.Open(n.FD())
		if err != nil {
			return err
		}
		for _, id := range []tableID{
			{unix.NFPROTO_IPV4, "filter"}, {unix.NFPROTO_IPV6, "filter"}, {unix.NFPROTO_IPV4, "nat"}, {unix.NFPROTO_IPV6, "nat"},
			{unix.NFPROTO_INET, "firewalld"}, {unix.NFPROTO_IPV4, "kube-proxy"}, {unix.NFPROTO_IPV6, "kube-proxy"}, {unix.NFPROTO_BRIDGE, "filter"},
			// Names that are kaji's own in other families, or begin like them.
			{unix.NFPROTO_INET, "kaji-proxy"}, {unix.NFPROTO_INET, "kaji-pods"}, {unix.NFPROTO_INET, "kaji-policy"}, {unix.NFPROTO_IPV4, "kaji"},
			{unix.NFPROTO_IPV4, "kaji-proxy-2"}, {unix.NFPROTO_IPV4, "kaji-nodes-another"},
		} {
			f.tables[id] = true
			if err := f.fill(conn, id); err != nil {
				return err
			}
		}
		if err := conn.Flush(); err != nil {
			return err
		}
		for _, line := range []string{"-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -s 198.51.100.0/24 -j DROP", "-t nat -A POSTROUTING -s 198.51.100.0/24 -j MASQUERADE"} {
			if path, err := exec.LookPath("iptables-legacy"); err == nil {
				if out, err := exec.Command(path, strings.Fields(line)...).CombinedOutput(); err != nil {
					return fmt.Errorf("iptables-legacy %s: %w: %s", line, err, out)
				}
			}
		}
		return nil
	})
	f.before = f.dump()
	return f
}

// fill makes a table with sets, a map, chains of names that kaji uses, and base
// chains at the places and priorities where its own are.
func (f *Foreign) fill(conn *nftables.Conn, id tableID) error {
	table := conn.AddTable(&nftables.Table{Name: id.name, Family: nftables.TableFamily(id.family)})
	names := map[string][]nftables.SetElement{"services": {{Key: []byte{0, 80}}, {Key: []byte{1, 187}}}, "backends": {{Key: []byte{31, 144}}}, "host-ports": {{Key: []byte{0, 22}}}}
	for _, name := range []string{"services", "backends", "host-ports"} {
		if err := conn.AddSet(&nftables.Set{Table: table, Name: name, KeyType: nftables.TypeInetService}, names[name]); err != nil {
			return err
		}
		f.sets[id] = append(f.sets[id], name)
	}
	conn.AddObj(&nftables.CounterObj{Table: table, Name: "seen", Bytes: 4711, Packets: 42})
	rule := func(chain *nftables.Chain, verdict expr.VerdictKind) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, UserData: []byte("not kaji's"), Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("nobody0\x00")},
			&expr.Counter{Bytes: 7, Packets: 1},
			&expr.Verdict{Kind: verdict},
		}})
	}
	for _, name := range []string{"services", "refuse", "DOCKER-USER", "cluster-1"} {
		chain := conn.AddChain(&nftables.Chain{Table: table, Name: name})
		rule(chain, expr.VerdictDrop)
		rule(chain, expr.VerdictReturn)
	}
	filter := func(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) {
		rule(conn.AddChain(&nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority}), expr.VerdictDrop)
	}
	filter("filter-forward", nftables.ChainHookForward, *nftables.ChainPriorityNATDest-10)
	filter("FORWARD", nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	filter("filter-input", nftables.ChainHookInput, *nftables.ChainPriorityNATDest-10)
	if id.family == unix.NFPROTO_BRIDGE {
		return nil
	}
	for name, hook := range map[string]*nftables.ChainHook{"nat-prerouting": nftables.ChainHookPrerouting, "nat-postrouting": nftables.ChainHookPostrouting} {
		rule(conn.AddChain(&nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityNATDest}), expr.VerdictAccept)
	}
	return nil
}

// Tables returns the names of the tables of family ip.
func (n *Namespace) Tables() (names []string) {
	n.t.Helper()
	n.Do(func() error {
		conn, err := netfilter.Open(n.FD())
		if err != nil {
			return err
		}
		tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
		for _, t := range tables {
			names = append(names, t.Name)
		}
		return err
	})
	return names
}

// Unchanged fails the test unless all of it is as it was made, byte for byte,
// with its handles and counters.
func (f *Foreign) Unchanged(when string) {
	f.n.t.Helper()
	if now := f.dump(); now != f.before {
		was, is := strings.Split(f.before, "\n"), strings.Split(now, "\n")
		for i := range max(len(was), len(is)) {
			if i >= len(was) || i >= len(is) || was[i] != is[i] {
				f.n.t.Fatalf("%s: rules of others changed (%d lines were %d): %.300s\nwas %.300s", when, len(is), len(was), line(is, i), line(was, i))
			}
		}
	}
}

func line(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return "nothing"
}

// legacyCounters are those of policies, which every packet changes.
var legacyCounters = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`)

// dump is what the kernel says of the tables, a line a message.
func (f *Foreign) dump() string {
	var out bytes.Buffer
	f.n.Do(func() error {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: f.n.FD()})
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, kind := range []int{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET, unix.NFT_MSG_GETOBJ, unix.NFT_MSG_GETFLOWTABLE} {
			if err := f.messages(&out, conn, kind, unix.NFPROTO_UNSPEC, nil); err != nil {
				return err
			}
		}
		for id, sets := range f.sets {
			for _, name := range sets {
				ask, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(id.name + "\x00")}, {Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(name + "\x00")}})
				if err != nil {
					return err
				}
				if err := f.messages(&out, conn, unix.NFT_MSG_GETSETELEM, id.family, ask); err != nil {
					return fmt.Errorf("set %s of %s: %w", name, id.name, err)
				}
			}
		}
		if path, err := exec.LookPath("iptables-legacy-save"); err == nil {
			rules, err := exec.Command(path).Output()
			if err != nil {
				return err
			}
			out.Write(legacyCounters.ReplaceAll(rules, nil))
		}
		return nil
	})
	lines := strings.Split(out.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// messages writes the kernel's answers about foreign tables.
func (f *Foreign) messages(out *bytes.Buffer, conn *netlink.Conn, kind int, family byte, ask []byte) error {
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, ask...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // what is not there is missing in the dump
	}
	if err != nil {
		return err
	}
	for _, m := range answers {
		if len(m.Data) < 4 {
			continue
		}
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return err
		}
		for _, a := range attrs {
			// The table is the first attribute of all of them.
			if a.Type == unix.NFTA_TABLE_NAME && f.tables[tableID{m.Data[0], strings.TrimRight(string(a.Data), "\x00")}] {
				fmt.Fprintf(out, "%d %d %x\n", kind, m.Data[0], m.Data[4:]) // but for the count of transactions
			}
		}
	}
	return nil
}
