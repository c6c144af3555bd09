// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
)

// previous is the minor version before the one that is spoken here.
const previous = "1.36"

const (
	notNegative = "must be greater than or equal to 0"
	notCIDR     = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)"
	notPair     = "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]"
)

// validator gathers what is wrong, in upstream's order.
type validator struct {
	c    *configv1alpha1.KubeProxyConfiguration
	at   *field.Path
	errs field.ErrorList
}

// Validate says what a defaulted configuration may not ask for.
func Validate(c *configv1alpha1.KubeProxyConfiguration) field.ErrorList {
	v := &validator{c: c, at: field.NewPath("KubeProxyConfiguration")}
	v.modeFields()
	v.linux()
	switch c.Mode {
	case "", "iptables", modeIPVS, modeNFTables:
	default:
		v.invalid(v.at.Child("Mode", "ProxyMode"), string(c.Mode), "must be iptables, ipvs, nftables or blank (blank means the best-available proxy [currently iptables])")
	}
	if c.ClientConnection.Burst < 0 {
		v.invalid(v.at.Child("ClientConnection", "Burst"), c.ClientConnection.Burst, notNegative)
	}
	v.syncs()
	if c.ConfigSyncPeriod.Duration <= 0 {
		v.invalid(v.at.Child("ConfigSyncPeriod"), c.ConfigSyncPeriod, "must be greater than 0")
	}
	if net.ParseIP(c.BindAddress) == nil {
		v.invalid(v.at.Child("BindAddress"), c.BindAddress, "not a valid textual representation of an IP address")
	}
	v.hostPort("HealthzBindAddress", c.HealthzBindAddress)
	v.hostPort("MetricsBindAddress", c.MetricsBindAddress)
	v.nodePorts()
	if text := c.ShowHiddenMetricsForVersion; text != "" && text != previous {
		// Upstream says where it is once more.
		inner := field.Invalid(field.NewPath("showHiddenMetricsForVersion"), text, "must be omitted or have the value '"+previous+"'; only the previous minor version is allowed")
		v.invalid(v.at.Child("ShowHiddenMetricsForVersion"), text, "invalid showHiddenMetricsForVersion: "+inner.Error())
	}
	v.detectLocal()
	return v.errs
}

func (v *validator) invalid(at *field.Path, value any, detail string) {
	v.errs = append(v.errs, field.Invalid(at, value, detail))
}

// modeFields are those that only one mode has.
func (v *validator) modeFields() {
	const outside = "must be within the range [0, 31]"
	if bit := *v.c.IPTables.MasqueradeBit; bit < 0 || bit > 31 {
		v.invalid(v.at.Child("KubeProxyIPTablesConfiguration", "MasqueradeBit"), bit, outside)
	}
	switch v.c.Mode {
	case modeIPVS:
		at := v.at.Child("KubeProxyIPVSConfiguration")
		v.timeout(at.Child("TCPTimeout"), &v.c.IPVS.TCPTimeout)
		v.timeout(at.Child("TCPFinTimeout"), &v.c.IPVS.TCPFinTimeout)
		v.timeout(at.Child("UDPTimeout"), &v.c.IPVS.UDPTimeout)
		for i, text := range v.c.IPVS.ExcludeCIDRs {
			if _, _, err := net.ParseCIDR(text); err != nil {
				v.invalid(at.Child("ExcludeCidrs").Index(i), text, "must be a valid CIDR")
			}
		}
	case modeNFTables:
		if bit := *v.c.NFTables.MasqueradeBit; bit < 0 || bit > 31 {
			v.invalid(v.at.Child("KubeProxyNFTablesConfiguration", "MasqueradeBit"), bit, outside)
		}
	}
}

func (v *validator) timeout(at *field.Path, d *metav1.Duration) {
	if d.Duration < 0 {
		v.invalid(at, *d, notNegative)
	}
}

// linux are the settings of the kernel and the process.
func (v *validator) linux() {
	at := v.at.Child("KubeProxyLinuxConfiguration")
	track, t := at.Child("KubeProxyConntrackConfiguration"), &v.c.Conntrack
	if *t.MaxPerCore < 0 {
		v.invalid(track.Child("MaxPerCore"), *t.MaxPerCore, notNegative)
	}
	if *t.Min < 0 {
		v.invalid(track.Child("Min"), *t.Min, notNegative)
	}
	v.timeout(track.Child("TCPEstablishedTimeout"), t.TCPEstablishedTimeout)
	v.timeout(track.Child("TCPCloseWaitTimeout"), t.TCPCloseWaitTimeout)
	v.timeout(track.Child("UDPTimeout"), &t.UDPTimeout)
	v.timeout(track.Child("UDPStreamTimeout"), &t.UDPStreamTimeout)
	if n := *v.c.OOMScoreAdj; n < -1000 || n > 1000 {
		v.invalid(at.Child("OOMScoreAdj"), n, "must be within the range [-1000, 1000]")
	}
}

// syncs are the periods of the mode that is asked for.
func (v *validator) syncs() {
	period, least := v.c.IPTables.SyncPeriod.Duration, v.c.IPTables.MinSyncPeriod.Duration
	switch v.c.Mode {
	case modeIPVS:
		period, least = v.c.IPVS.SyncPeriod.Duration, v.c.IPVS.MinSyncPeriod.Duration
	case modeNFTables:
		period, least = v.c.NFTables.SyncPeriod.Duration, v.c.NFTables.MinSyncPeriod.Duration
	}
	said := func(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }
	if period <= 0 {
		v.invalid(v.at.Child("SyncPeriod"), said(period), "must be greater than 0")
	}
	if least < 0 {
		v.invalid(v.at.Child("MinSyncPeriod"), said(least), notNegative)
	}
	if least > period {
		v.invalid(v.at.Child("SyncPeriod"), said(least), "must be greater than or equal to "+v.at.Child("MinSyncPeriod").String())
	}
}

func (v *validator) hostPort(name, text string) {
	if text == "" {
		return
	}
	at := v.at.Child(name)
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		v.invalid(at, text, "must be IP:port")
		return
	}
	if net.ParseIP(host) == nil {
		v.invalid(at, host, "must be a valid IP")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		v.invalid(at, port, "must be a valid port")
	}
}

func (v *validator) nodePorts() {
	for i, text := range v.c.NodePortAddresses {
		if slices.Contains([]string{primary, localhost, anywhere}, text) {
			continue
		}
		if _, err := netip.ParsePrefix(text); err != nil {
			v.invalid(v.at.Child("NodePortAddresses").Index(i), text, "must be a valid CIDR or one of the keywords 'primary', 'localhost', 'all'")
		}
	}
}

func (v *validator) detectLocal() {
	at := v.at.Child("DetectLocalConfiguration")
	switch v.c.DetectLocalMode {
	case ModeNodeCIDR:
	case ModeClusterCIDR:
		v.clusterCIDRs(at.Child("ClusterCIDRs"))
	case ModeBridgeInterface:
		if v.c.DetectLocal.BridgeInterface == "" {
			v.invalid(at.Child("InterfaceName"), "", "must not be empty")
		}
	case ModeInterfaceNamePrefix:
		if v.c.DetectLocal.InterfaceNamePrefix == "" {
			v.invalid(at.Child("InterfacePrefix"), "", "must not be empty")
		}
	default:
		v.errs = append(v.errs, field.NotSupported(v.at.Child("DetectLocalMode"), v.c.DetectLocalMode,
			[]string{string(ModeClusterCIDR), string(ModeNodeCIDR), string(ModeBridgeInterface), string(ModeInterfaceNamePrefix), ""}))
	}
}

func (v *validator) clusterCIDRs(at *field.Path) {
	if v.c.ClusterCIDR == "" {
		return
	}
	all := strings.Split(v.c.ClusterCIDR, ",")
	good, v6 := true, map[bool]bool{}
	for i, text := range all {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			v.invalid(at.Index(i), text, notCIDR)
			good = false
			continue
		}
		v6[p.Addr().Is6()] = true
	}
	if good && (len(all) > 2 || len(v6) != len(slices.Compact(slices.Clone(all)))) {
		v.invalid(at, all, notPair)
	}
}
