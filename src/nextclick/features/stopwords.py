"""Words that stand in every text and tell nothing of an item, in the languages that shops mix most."""

from __future__ import annotations

_LISTS = {
    "English": (
        "a an and are as at be been but by can do for from had has have he her his how i if in into is it "
        "its me more most my no not of on only or other our out over she so some such than that the their "
        "them then there these they this those to too up us very was we were what when where which who will "
        "with you your"
    ),
    "German": (
        "aber alle als also am an auch auf aus bei bin bis da das dass dein dem den der des die dies diese "
        "dieser doch du durch ein eine einem einen einer eines er es für hat hier ich ihr im in ist ja kein "
        "keine mein mit nach nicht noch nur oder sehr sein sich sie sind so über um und uns unter vom von "
        "vor war was weil wenn wie wir wird zu zum zur"
    ),
    "French": (
        "à au aux avec c ce ces cette d dans de des du elle en est et il ils je l la le les leur lui mais "
        "mes mon ne nos notre nous on ou où par pas plus pour qu que qui s sa sans se ses si son sont sur "
        "ta tes ton très tu un une vos votre vous y"
    ),
    "Spanish": (
        "a al algo como con de del desde donde e el ella ellos en entre era es esta este esto estos ha hay "
        "la las le les lo los más me mi muy nada ni no nos o para pero por porque que se ser si sin sobre "
        "son su sus también te tu un una uno unos y ya yo"
    ),
    "Italian": (
        "a ad ai al alla alle anche che chi ci come con da dal dalla dei del della delle di e è ed gli ha i "
        "il in io la le lo ma mi ne nei nel nella noi non o per perché più quale quella quello questa "
        "questo se sei si sia sono su sul sulla suo ti tra tu un una uno"
    ),
    "Portuguese": (
        "a ao aos as com como da das de dela dele do dos e é ela ele em entre era essa esse esta este eu "
        "foi há isso já lhe mais mas me meu minha muito na não nas no nos o os ou para pela pelo por qual "
        "que se sem seu sua são também te tem um uma você"
    ),
    "Dutch": (
        "aan al als bij dan dat de deze die dit door een en er ge had heeft het hij hoe ik in is je kan "
        "maar me meer met mij na naar niet nog of om ons ook op over te tot u uit van veel voor wat we wel "
        "wie wij zal ze zich zijn zo"
    ),
    "Polish": (
        "a ale bez być co czy dla do go i ich ja jak jest już lub ma mi na nad nie o od po pod przez są się "
        "ta tak te tego ten to tu tym w we z za ze że"
    ),
    "Swedish": (
        "alla att av de den denna det detta du eller en ett från för ha har hon han i ingen inte jag kan "
        "med men min mot när och om på sig sin som så till under upp var vi är än"
    ),
}
STOP_WORDS: frozenset[str] = frozenset(" ".join(_LISTS.values()).split())
