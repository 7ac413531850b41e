package api

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/lsst-dm/s3daemon/push"
)

// userKey is the key of WithUser.
type userKey struct{}

// WithUser returns a context for the requests of a connection over a Unix
// socket, with the user (uid) who made it. Without it nobody is known to be
// there, so that Config.Users lets none in.
func WithUser(ctx context.Context, uid uint32) context.Context {
	return context.WithValue(ctx, userKey{}, uid)
}

// authenticate turns away who is not known. It asks of each connection what
// fits it: over a Unix socket the kernel says who is there, over TCP nobody does.
func (a *api) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := a.known(r)
		if err != nil && !forAll(r) {
			a.turnAway(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// known returns an error for a request whose caller may not use the API.
func (a *api) known(r *http.Request) error {
	if overUnix(r) {
		uid, known := r.Context().Value(userKey{}).(uint32)
		switch {
		case len(a.Users) == 0 || known && slices.Contains(a.Users, uid):
			return nil
		case !known:
			return push.Errorf(push.UserNotAllowed, "S3DAEMON_UIDS lets certain users in, and the system does not say who you are")
		}
		return push.Errorf(push.UserNotAllowed, "the user %d may not use this daemon: have S3DAEMON_UIDS name the user", uid)
	}
	if a.Tokens == nil {
		return nil
	}
	token, given := bearer(r.Header)
	switch {
	case given && a.Tokens(token):
		return nil
	case given:
		return push.Errorf(push.Unauthorized, "the token is none of this daemon's: send one that its S3DAEMON_TOKEN_FILE has")
	}
	return push.Errorf(push.Unauthorized, "this daemon wants a token: send one that its S3DAEMON_TOKEN_FILE has, in the one header Authorization: Bearer TOKEN")
}

// bearer returns the token of the Authorization header, if there is one such
// header and it has one (RFC 6750, 2.1). Of two, which counts would be a matter
// of who reads them.
func bearer(header http.Header) (token string, given bool) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// pagePath is where the status page is.
const pagePath = "/"

// forAll reports whether a request is for what everybody may know who reaches
// the daemon: whether it is alive, its metrics, and the page, which has to ask
// for the rest itself and then needs what all who ask do. The path is looked at
// as the router does it.
func forAll(r *http.Request) bool {
	if r.URL.RawPath != "" {
		return false
	}
	switch r.URL.Path {
	case pagePath, "/healthz", "/readyz", "/metrics":
		return true
	}
	return false
}

// overUnix reports whether a request came over a Unix socket.
func overUnix(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return local != nil && local.Network() == "unix"
}
