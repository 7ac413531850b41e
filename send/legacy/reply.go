package legacy

import (
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/send/client"
)

const (
	success = "Success"

	// MaxReplyBytes is the longest reply. Old clients look no further.
	MaxReplyBytes = 4096
)

// reply is what a client reads: success, or what went wrong.
func reply(err error) string {
	if err == nil {
		return success
	}
	text := strings.ToValidUTF8(client.Explain(err), "\uFFFD")
	if text == "" || strings.HasPrefix(text, success) {
		text = "error: " + text
	}
	if len(text) > MaxReplyBytes {
		cut := MaxReplyBytes
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	return text
}

// finish sends the reply. The caller then closes the connection; but closing a
// socket with unread input makes the kernel reset the connection, and a reset
// can overtake the reply, or stop a client that is still sending. So where the
// client has sent more than its line, or may be about to, finish reads that
// away until the client closes, for a while.
func finish(conn net.Conn, text string, more bool) {
	conn.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := io.WriteString(conn, text); err != nil {
		return // it did not wait for the answer
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !more && !unread(conn) || !ok || half.CloseWrite() != nil {
		return
	}
	conn.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, io.LimitReader(conn, 4<<20))
}
