// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"fmt"
	"net"
	"strconv"
)

// address is a flag that holds an IP address.
type address string

// String implements pflag.Value.
func (a *address) String() string { return string(*a) }

// Type implements pflag.Value.
func (*address) Type() string { return "ip" }

// Set implements pflag.Value.
func (a *address) Set(text string) error {
	if net.ParseIP(text) == nil {
		return fmt.Errorf("%q is not a valid IP address", text)
	}
	*a = address(text)
	return nil
}

// endpoint is a flag that holds an IP address, with a port or without; empty is
// nowhere.
type endpoint string

// String implements pflag.Value.
func (e *endpoint) String() string { return string(*e) }

// Type implements pflag.Value.
func (*endpoint) Type() string { return "ipport" }

// Set implements pflag.Value.
func (e *endpoint) Set(text string) error {
	if text == "" || net.ParseIP(text) != nil {
		*e = endpoint(text)
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("%q is not in a valid format (ip or ip:port): %w", text, err)
	}
	if net.ParseIP(host) == nil {
		return fmt.Errorf("%q is not a valid IP address", host)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a valid number", port)
	}
	*e = endpoint(text)
	return nil
}
