{#
    Sessions by the usual trading hours of the three regions, in UTC and without daylight saving: crypto trades round
    the clock, the label only says who is at the desk.
#}
select
    cast(hour as bigint) as hour,
    case
        when hour < 8 then 'asia'
        when hour < 13 then 'europe'
        when hour < 21 then 'america'
        else 'late'
    end as session
from ({% for hour in range(24) %}select {{ hour }} as hour{{ " union all " if not loop.last }}{% endfor %}) as hours
