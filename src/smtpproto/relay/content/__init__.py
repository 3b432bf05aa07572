"""What mail holds, made fit for where it goes.

In reading order::

    header      what is known of a header that goes by
    mime_header … of one part of it
    quoted      quoted-printable text
    downgrade   8 bit and binary, for hops that take less
    reading     content as it lies in the spool, for those who want it otherwise
"""
