// SPDX-License-Identifier: Apache-2.0

package impersonate

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// nodeOf returns the node whose user name it is, or nothing.
func nodeOf(username string) string {
	name, ok := strings.CutPrefix(username, "system:node:")
	if !ok || len(validation.NameIsDNSSubdomain(name, false)) > 0 {
		return ""
	}
	return name
}

func isServiceAccount(username string) bool {
	_, _, err := serviceaccount.SplitUsername(username)
	return err == nil
}

// runsOn says whether a sender is a ServiceAccount whose token is of a pod on
// the node of that user name.
func runsOn(sender user.Info, username string) bool {
	node := nodeOf(username)
	on := sender.GetExtra()[serviceaccount.NodeNameKey]
	return node != "" && isServiceAccount(sender.GetName()) && len(on) == 1 && on[0] == node
}

func nameOnly(u user.Info) bool {
	return u.GetUID() == "" && len(u.GetGroups()) == 0 && len(u.GetExtra()) == 0
}
