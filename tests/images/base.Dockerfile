# A base with Python, made from Debian's packages: in the tests it takes the place of python:3.13-slim.
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
