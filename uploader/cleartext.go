package uploader

import (
	"context"
	"log/slog"
	"net"
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

// lookup asks the name service, as net.Resolver.LookupNetIP does.
type lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error)

// warnOfCleartext says in the log what can be read on the way to a store that is asked
// without TLS, unless that way is within the host or a private network. The proxy is nil
// where there is none; one that is asked with TLS passes on in clear what it gets.
func warnOfCleartext(ctx context.Context, log *slog.Logger, store, proxy *url.URL, look lookup) {
	if store.Scheme != "http" {
		return
	}
	const inClear = "all that goes to the store can be read and changed on the way, since its address is http: the files, their names, signatures and session tokens, though not the secret key: use https"
	log = log.With("store", store.Redacted())
	if proxy != nil && proxy.Scheme != "https" {
		if address, err := leavesTo(ctx, proxy.Hostname(), look); err != nil || address.IsValid() {
			log.Warn(inClear+"; the way leads by a proxy that is not on a private network", "proxy", proxy.Host)
			return
		}
	}
	switch address, err := leavesTo(ctx, store.Hostname(), look); {
	case err != nil:
		log.Warn(inClear + "; whether it is on a private network cannot be told, since its name is not found")
	case address.IsValid():
		log.Warn(inClear, "address", address.String())
	}
}

// leavesTo returns an address of the host that is on no private network; the zero value
// where there is none. A name that is not found is an error, unless no public name
// service could have it.
func leavesTo(ctx context.Context, host string, look lookup) (netip.Addr, error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	addresses := []netip.Addr{}
	if address, err := netip.ParseAddr(host); err == nil {
		addresses = append(addresses, address)
	} else if host != "localhost" {
		ctx, cancel := context.WithTimeout(ctx, lookupTakes)
		defer cancel()
		found, err := look(ctx, "ip", host)
		if err == nil && len(found) == 0 {
			err = &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
		}
		if err != nil && !local(host) {
			return netip.Addr{}, err
		}
		addresses = found
	}
	for _, a := range addresses {
		if !private(a) {
			return a, nil
		}
	}
	return netip.Addr{}, nil
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
