package uploader

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// lookupTakes is how long the name of a store may take to be looked up, for a warning.
const lookupTakes = 10 * time.Second

// carrierGrade has addresses that networks share among themselves (RFC 6598); clouds and
// private networks over others use them.
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")

// warnOfCleartext says in the log what can be read on the way to a store that is asked
// without TLS, unless that way is within the host or a private network.
func warnOfCleartext(ctx context.Context, log *slog.Logger, store *url.URL, lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)) {
	if store == nil || store.Scheme != "http" {
		return
	}
	const inClear = "all that goes to the store can be read and changed on the way, since its address is http: the files, their names, signatures and session tokens, though not the secret key: use https"
	host := strings.TrimSuffix(strings.ToLower(store.Hostname()), ".")
	if address, err := netip.ParseAddr(host); err == nil {
		if !private(address) {
			log.Warn(inClear, "store", store.Redacted())
		}
		return
	}
	if host == "localhost" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTakes)
	defer cancel()
	addresses, err := lookup(ctx, "ip", host)
	switch {
	case err == nil && len(addresses) > 0:
		for _, a := range addresses {
			if !private(a) {
				log.Warn(inClear, "store", store.Redacted(), "address", a.String())
				return
			}
		}
	case !local(host):
		log.Warn(inClear+"; whether it is on a private network cannot be told, since its name is not found", "store", store.Redacted())
	}
}

// private reports whether what goes to an address stays within the host or a network that
// is not the Internet.
func private(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || carrierGrade.Contains(a)
}

// local reports whether a name is of those that no public name service has.
func local(host string) bool {
	if !strings.Contains(host, ".") {
		return true
	}
	for _, suffix := range []string{".local", ".internal", ".svc", ".localhost", ".home.arpa", ".test"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}
